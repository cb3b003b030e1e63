// A program that shows which file it was started from, stays when told to, and starts others.
use std::io::{stdin, BufRead, Read};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

static PAYLOAD: &[u8] = include_bytes!(env!("TOOL_PAYLOAD"));
static IS_OVER: AtomicBool = AtomicBool::new(false);

// Reads the whole file, so that a part of it or a mixture would be noticed.
fn told() -> String {
    let sum = PAYLOAD.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte as u64));
    format!("tool {} {:016x}\n", env!("TOOL_VERSION"), sum)
}

fn end_with_input() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = stdin().read_to_end(&mut rest);
        IS_OVER.store(true, Ordering::SeqCst);
    });
}

fn hammer(path: &str, expected: &[String]) {
    end_with_input();
    let mut counts = vec![0u64; expected.len()];
    while !IS_OVER.load(Ordering::SeqCst) {
        match Command::new(path).output() {
            Err(error) => println!("wrong: {error}"),
            Ok(ended) => {
                let text = String::from_utf8_lossy(&ended.stdout).into_owned();
                match expected.iter().position(|each| *each == text.trim_end()) {
                    Some(at) if ended.status.success() => counts[at] += 1,
                    _ => println!("wrong: {} {:?}", ended.status, text),
                }
            }
        }
    }
    println!("{counts:?}");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("stay") => {
            print!("{}", told());
            for _ in stdin().lock().lines() {
                print!("{}", told());
            }
        }
        Some("hammer") => hammer(&words[1], &words[2..]),
        Some("burn") => {
            end_with_input();
            while !IS_OVER.load(Ordering::SeqCst) {
                std::hint::black_box(told());
            }
        }
        _ => print!("{}", told()),
    }
}
