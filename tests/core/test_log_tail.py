"""The end of a log that grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.log_tail import LEFT_OUT, LINE_LIMIT, TAIL_BYTES, TAIL_LINES, LogTail


def tail(*parts: bytes) -> LogTail:
    new = LogTail()
    for part in parts:
        new.add(part)
    return new


def test_lines_are_numbered_from_the_begin() -> None:
    log = tail(b"one\ntwo\nth")

    assert (log.lines().first, log.lines().lines, log.lines().next) == (0, ("one", "two"), 2)
    log.add(b"ree\n")
    assert (log.lines(2).first, log.lines(2).lines) == (2, ("three",))
    assert log.lines(3).lines == ()


def test_a_line_without_an_end_is_one_when_nothing_more_comes() -> None:
    log = tail(b"one\nerror: no")

    assert log.lines().lines == ("one",)
    assert log.lines(is_over=True).lines == ("one", "error: no")
    assert log.lines(is_over=True).lines == ("one", "error: no")


def test_an_end_of_line_that_comes_in_two_halves_is_one() -> None:
    log = tail(b"one\r")
    assert log.lines().lines == ()

    log.add(b"\ntwo\r\n")
    assert log.lines().lines == ("one", "two")


def test_progress_that_is_drawn_over_itself_shows_each_state() -> None:
    assert tail(b"10 %\r20 %\r30 %").lines().lines == ("10 %", "20 %")


def test_a_character_that_comes_in_two_halves_is_one() -> None:
    assert tail("gr\u00fc".encode()[:-1], "\u00fc".encode()[1:] + b"n\n").lines().lines == (
        "gr\u00fcn",
    )


def test_what_is_not_text_is_spelt_out_and_colours_are_dropped() -> None:
    log = tail(b"\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \xe2\x80\xaeevil \xff\n")

    assert log.lines().lines == ("red \\x1b]52;c;aGk=\\x07 \\u202eevil \ufffd",)


def test_empty_lines_are_none() -> None:
    assert tail(b"one\n\n \n\x1b[0m\ntwo\n").lines().lines == ("one", "two")


def test_of_many_lines_the_last_are_kept_with_their_numbers() -> None:
    log = LogTail()
    for number in range(1000):
        log.add(b"%d\n" % number)
        log.lines()
    kept = log.lines()

    assert (kept.first, len(kept.lines), kept.lines[-1], kept.next) == (800, 200, "999", 1000)
    assert log.lines(500) == kept


def test_of_very_much_at_once_the_end_is_kept_and_the_gap_is_told() -> None:
    log = tail(b"first\n" + b"x" * TAIL_BYTES + b"\nlast\n")

    assert log.lines().lines == (LEFT_OUT, "last")


def test_what_nobody_looked_at_is_left_out_when_more_comes() -> None:
    log = LogTail()
    for number in range(10_000):
        log.add(b"line %d\n" % number)

    assert log.lines().lines[-1] == "line 9999"
    assert len(log.lines().lines) <= TAIL_LINES


def test_of_long_lines_fewer_are_kept() -> None:
    log = LogTail()
    for number in range(100):
        log.add(b"%d %s\n" % (number, b"w" * 900))
        log.lines()
    kept = log.lines()

    assert kept.lines[-1].startswith("99 ")
    assert kept.next == 100
    assert TAIL_BYTES - 1000 < sum(map(len, kept.lines)) <= TAIL_BYTES


def test_a_line_without_an_end_that_never_ends_takes_no_memory() -> None:
    log = LogTail()
    for _ in range(100):
        log.add(b"y" * 10_000)
        assert log.lines().lines == ()
    log.add(b"\nend\n")

    assert log.lines().lines == (LEFT_OUT, "end")


def test_a_long_line_is_cut() -> None:
    [line] = tail(b"z" * 5000 + b"\n").lines().lines

    assert (len(line), line[-1]) == (LINE_LIMIT, "\u2026")


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_whatever_comes_however_cut_the_lines_are_the_same_and_can_be_shown(
    parts: list[bytes],
) -> None:
    one, many = tail(b"".join(parts)), LogTail()
    for part in parts:
        many.add(part)
        many.lines()
    lines = many.lines(is_over=True)

    assert lines == one.lines(is_over=True)
    assert all(line.isprintable() and line.strip() for line in lines.lines)
    assert sum(map(len, lines.lines)) <= TAIL_BYTES
