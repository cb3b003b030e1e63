//! `trajectory --velocity 800 --bc 0.45 --range 500` prints where the bullet is, every 100 m.

use std::process::ExitCode;

use trajectory::{trajectory, Point, Shot};

const USAGE: &str = "\
Where a bullet goes: a point mass under gravity and drag.

Usage: trajectory --velocity M/S --bc COEFFICIENT --range M [--step M]

  --velocity M/S     speed at the muzzle, 50 to 3000
  --bc COEFFICIENT   G1 ballistic coefficient in lb/in², 0.01 to 2
  --range M          how far to look, 1 to 5000
  --step M           distance between lines, 1 to 5000 [default: 100]
  --version          print the version
  --help             print this text";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match parse(&arguments) {
        Ok(Command::Help) => println!("{USAGE}"),
        Ok(Command::Version) => println!("trajectory {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Table { shot, range, step }) => {
            print!("{}", table(&trajectory(shot, range, step)))
        }
        Err(message) => {
            eprintln!("trajectory: {message}; see --help");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

#[derive(Debug)]
enum Command {
    Help,
    Version,
    Table { shot: Shot, range: f64, step: f64 },
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    let (mut velocity, mut coefficient, mut range, mut step) = (None, None, None, Some(100.0));
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (place, limits) = match word.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" => return Ok(Command::Version),
            "--velocity" => (&mut velocity, 50.0..=3000.0),
            "--bc" => (&mut coefficient, 0.01..=2.0),
            "--range" => (&mut range, 1.0..=5000.0),
            "--step" => (&mut step, 1.0..=5000.0),
            _ => return Err(format!("unknown argument `{word}`")),
        };
        let text = words.next().ok_or(format!("{word} needs a number"))?;
        *place = match text.parse::<f64>() {
            Ok(number) if limits.contains(&number) => Some(number),
            _ => {
                return Err(format!(
                    "{word} {text} is not in {} to {}",
                    limits.start(),
                    limits.end()
                ))
            }
        };
    }
    let required = |name: &str, value: Option<f64>| value.ok_or(format!("{name} is missing"));
    let shot = Shot {
        velocity: required("--velocity", velocity)?,
        coefficient: required("--bc", coefficient)?,
    };
    Ok(Command::Table {
        shot,
        range: required("--range", range)?,
        step: required("--step", step)?,
    })
}

fn table(points: &[Point]) -> String {
    let mut lines = format!(
        "{:>8} {:>9} {:>13} {:>8}\n",
        "range_m", "drop_m", "velocity_m/s", "time_s"
    );
    for point in points {
        lines += &format!(
            "{:>8.0} {:>9.3} {:>13.1} {:>8.3}\n",
            point.range, point.drop, point.velocity, point.time
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(
            &line
                .split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn arguments_may_come_in_any_order() {
        let command = parsed("--range 500 --bc 0.45 --velocity 800");
        assert!(
            matches!(command, Ok(Command::Table { range, step, .. }) if range == 500.0 && step == 100.0)
        );
    }

    #[test]
    fn bad_arguments_are_named() {
        for (line, message) in [
            ("--range 500 --bc 0.45", "--velocity is missing"),
            ("--velocity fast", "--velocity fast is not in 50 to 3000"),
            ("--bc NaN", "--bc NaN is not in 0.01 to 2"),
            ("--range", "--range needs a number"),
            ("500", "unknown argument `500`"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), message);
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_point() {
        let points = trajectory(
            Shot {
                velocity: 800.0,
                coefficient: 0.45,
            },
            500.0,
            100.0,
        );
        assert_eq!(table(&points).lines().count(), 7);
    }
}
