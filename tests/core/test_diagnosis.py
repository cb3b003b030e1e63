"""What ended a build: the words of real tools, and the words that must not be taken for them."""

from __future__ import annotations

import pytest

from orchestrator.core.diagnosis import MachineReason, Strain, diagnose

UNKNOWN = Strain()
FULL = Strain(free_kib=0, free_inodes=7)
ROOMY = Strain(free_kib=9_000_000, free_inodes=900_000)
KILLS = Strain(free_kib=9_000_000, oom_kills=1)


def of(log: str, strain: Strain = UNKNOWN, exit_status: int = 101) -> MachineReason | None:
    return diagnose(exit_status=exit_status, log_tail=log.encode(), strain=strain)


CARGO_FULL = """\
   Compiling demo v1.0.0 (/build/source)
error: failed to write `/w/target/debug/.fingerprint/demo-d04665b9f7582395/invoked.timestamp`

Caused by:
  No space left on device (os error 28)
"""
RUSTC_TEMP = (
    "error: couldn't create a temp dir: No space left on device (os error 28) "
    'at path "/w/target/release/deps/rmetaXNmzZr"\n\n'
    "error: could not compile `demo` (lib) due to 1 previous error\n"
)
LINKER = """\
error: linking with `cc` failed: exit status: 1
  |
  = note:  "cc" "-m64" "/w/rustcJRffSY/symbols.o" "<2 object files omitted>"
  = note: /usr/bin/ld: final link failed: No space left on device
          collect2: error: ld returned 1 exit status

error: aborting due to 1 previous error
"""
LLD = LINKER.replace(
    "/usr/bin/ld: final link failed: No space left on device",
    "collect2: fatal error: ld terminated with signal 7 [Bus error]",
)
ASSEMBLER = """\
/tmp/ccOfEX5L.s: Assembler messages:
/tmp/ccOfEX5L.s: Fatal error: can't write 11 bytes to section .text of /w/x.o: \
'No space left on device'
/tmp/ccOfEX5L.s: Fatal error: /w/x.o: No such file or directory
"""
CC = """\
main.c:1:1: fatal error: error closing /tmp/cc60OAOi.s: No space left on device
    1 | int main(){return 0;}
      | ^~~
compilation terminated.
"""
UNWRAPPED = (
    "thread 'main' panicked at build.rs:9:40:\n"
    "called `Result::unwrap()` on an `Err` value: "
    'Os { code: 28, kind: StorageFull, message: "No space left on device" }\n'
)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (CARGO_FULL, "No space left on device (os error 28)"),
        (RUSTC_TEMP, "error: couldn't create a temp dir: No space left on device (os error 28) at"),
        (LINKER, "= note: /usr/bin/ld: final link failed: No space left on device"),
        (ASSEMBLER, "/tmp/ccOfEX5L.s: Fatal error: can't write 11 bytes to section .text of"),
        (CC, "main.c:1:1: fatal error: error closing /tmp/cc60OAOi.s: No space left on device"),
        (UNWRAPPED, "called `Result::unwrap()` on an `Err` value: Os { code: 28, kind: Stor"),
        ("tar: ls: Cannot write: No space left on device\ntar: Exiting with", "tar: ls: Cannot"),
        ("cp: error writing '.out.7': No space left on device", "cp: error writing '.out.7': No"),
        ("LLVM ERROR: IO failure on output stream: No space left on device", "LLVM ERROR: IO fa"),
        ("sh: can't create x: Disk quota exceeded", "sh: can't create x: Disk quota exceeded"),
        (
            "\x1b[1merror\x1b[0m: x: No space left on device.\r\n",
            "error: x: No space left on device.",
        ),
    ],
)
def test_a_full_disk_is_known_by_the_words_of_whoever_met_it(log: str, said: str) -> None:
    reason = of(log)
    assert reason is not None
    assert reason.message.startswith(f"the node's disk is full: {said}")
    assert "workdir" in reason.hint


def test_the_evidence_of_a_full_disk_is_in_the_message() -> None:
    reason = of("x: No space left on device", Strain(free_kib=12, free_inodes=0))
    assert reason is not None
    assert reason.message == (
        "the node's disk is full: x: No space left on device; "
        "12 KiB and 0 inodes were free in its workdir afterwards"
    )


@pytest.mark.parametrize(
    ("log", "exit_status", "said"),
    [
        (LLD, 101, "= note: collect2: fatal error: ld terminated with signal 7 [Bus error]"),
        ("ld: error: failed to write output", 1, "ld: error: failed to write output"),
        ("   Compiling demo v1.0.0\n   Compi", 101, "the build ended with status 101 and no word"),
        ("something failed", 135, "a bus error"),
    ],
)
def test_weaker_words_are_believed_when_nothing_is_free(
    log: str, exit_status: int, said: str
) -> None:
    for strain in (FULL, Strain(free_kib=9999, free_inodes=0)):
        reason = of(log, strain, exit_status)
        assert reason is not None
        assert reason.message.startswith(f"the node's disk is full: {said}")
    assert of(log, ROOMY, exit_status) is None
    assert of(log, UNKNOWN, exit_status) is None


@pytest.mark.parametrize(
    "log",
    [
        "rustc-LLVM ERROR: out of memory\nAllocation failed",
        "memory allocation of 4294967296 bytes failed\nerror: could not compile `demo` (lib)",
        "error: failed to spawn: Cannot allocate memory (os error 12)",
        "sh: 1: Cannot fork: Cannot allocate memory",
        "virtual memory exhausted: Cannot allocate memory",
        "/usr/bin/ld: final link failed: memory exhausted",
        "cc1plus: out of memory allocating 65536 bytes after a total of 8192 bytes",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_a_lack_of_memory_is_known_by_the_words_of_whoever_met_it(log: str) -> None:
    reason = of(log, ROOMY)
    assert reason is not None
    assert reason.message == f"the node ran out of memory: {log.splitlines()[0]}"


RUSTC_KILLED = """\
error: could not compile `demo` (lib)

Caused by:
  process didn't exit successfully: `rustc --crate-name demo` (signal: 9, SIGKILL: kill)
"""


@pytest.mark.parametrize(
    ("log", "exit_status", "said"),
    [
        (RUSTC_KILLED, 101, "process didn't exit successfully"),
        ("   Compiling demo", 137, "the build was killed"),
        ("c++: fatal error: Killed signal terminated program cc1plus", 1, "c++: fatal error: K"),
        ("collect2: fatal error: ld terminated with signal 9 [Killed]", 1, "collect2: fatal"),
    ],
)
def test_a_kill_is_for_want_of_memory_when_the_kernel_counted_one(
    log: str, exit_status: int, said: str
) -> None:
    reason = of(log, KILLS, exit_status)
    assert reason is not None
    assert reason.message.startswith(f"the node ran out of memory: {said}")
    assert reason.message.endswith("; its kernel killed for want of memory: 1")
    uncounted = of(log, ROOMY, exit_status)
    assert uncounted is None or uncounted.message.startswith("something on the node killed it")


MISTAKE = """\
error[E0308]: mismatched types
  --> src/main.rs:3:18
   |
3  |     let x: u32 = "disk: No space left on device";
   |            ---   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected `u32`, found `&str`
"""
PANIC = """\
error: proc macro panicked
 --> src/lib.rs:1:1
  |
1 | include_config!();
  | ^^^^^^^^^^^^^^^^^
  |
  = help: message: cannot read: No space left on device (os error 28)
"""


@pytest.mark.parametrize(
    "log",
    [
        MISTAKE,
        PANIC,
        MISTAKE + RUSTC_KILLED,
        "error[E0425]: cannot find value `x` in this scope\n" + CARGO_FULL,
        'main.c:1:9: error: expected expression\n    1 | int x = ": No space left on device";',
        "warning: x@1.0.0: a.c:3:5: error: unknown type name 'foo'\nerror: could not write it",
        '3 |     panic!("x: No space left on device")',
        "warning: could not save last-use data: No space left on device (os error 28)\nexit 1",
        "docs: what to do about 'No space left on device' errors",
        "the build was killed by its own test: signal 15",
    ],
)
@pytest.mark.parametrize(
    "strain", [Strain(free_kib=5000, free_inodes=500), Strain(free_kib=1, free_inodes=1)]
)
def test_what_a_compiler_refuses_is_the_code(log: str, strain: Strain) -> None:
    assert of(log, strain) is None


@pytest.mark.parametrize("log", [MISTAKE, PANIC, MISTAKE + RUSTC_KILLED])
def test_no_evidence_of_a_machine_outdoes_a_compiler(log: str) -> None:
    assert of(log, Strain(free_kib=0, free_inodes=0, oom_kills=9), 137) is None


def test_warnings_with_a_place_are_no_refusal() -> None:
    warned = "warning: unused variable: `x`\n --> src/main.rs:2:9\n"
    assert of(warned + RUSTC_TEMP) is not None
    assert of(RUSTC_TEMP + warned) is not None


def test_only_the_end_of_a_log_counts() -> None:
    log = CARGO_FULL + "another try\n" * 100
    assert of(log + "error: linking failed: undefined symbol: foo", FULL) is None
    assert of(log) is None


def test_a_success_needs_no_reason() -> None:
    assert of(CARGO_FULL, FULL, exit_status=0) is None


def test_what_is_shown_is_short_and_moves_no_cursor() -> None:
    reason = of("a\x07b" * 200 + ": No space left on device")
    assert reason is not None
    assert reason.message.isprintable()
    assert len(reason.message) < 300


@pytest.mark.parametrize(
    ("log", "exit_status"),
    [("   Compiling demo", 137), ("  process didn't exit successfully (signal: 9, SIGKILL)", 101)],
)
def test_nothing_kills_itself(log: str, exit_status: int) -> None:
    reason = of(log, UNKNOWN, exit_status)
    assert reason is not None
    assert reason.message.startswith("something on the node killed it (SIGKILL)")
    assert reason.may_pass
    assert of("a test of SIGKILL failed", UNKNOWN, 101) is None
