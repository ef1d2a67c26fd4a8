"""Lines of output and what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.output.lines import KEPT_BYTES, Judge, Splitter

TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 3, in <module>
    main()

  File "train.py", line 1, in main
ValueError: no"""


@given(st.lists(st.text(alphabet="ab\n", max_size=20), max_size=8))
def test_lines_are_those_of_the_whole_however_it_is_cut_into_blocks(blocks: list[str]) -> None:
    splitter = Splitter()
    lines = [line for block in blocks for line in splitter.feed(block.encode())]
    lines += splitter.finish()
    whole = "".join(blocks)
    assert [line.text for line in lines] == whole.splitlines()
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(whole[line.offset :].startswith(line.text) for line in lines)
    assert splitter.offset == len(whole)


def test_a_long_line_is_cut_and_what_follows_keeps_its_place() -> None:
    splitter = Splitter(offset=7, number=3)
    long = b"x" * (KEPT_BYTES + 10)
    lines = [line for block in (long[:100], long[100:], b"\nnext\n") for line in splitter.feed(block)]
    assert [(len(line.text), line.is_cut, line.offset, line.number) for line in lines] == [
        (KEPT_BYTES, True, 7, 4),
        (4, False, 8 + len(long), 5),
    ]


def test_a_bar_of_progress_shows_what_it_showed_last() -> None:
    lines = list(Splitter().feed(b"10%|#\r50%|#####\r100%|##########\nwindows\r\n"))
    assert [line.text for line in lines] == ["100%|##########", "windows"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2026-01-01 12:00:00 ERROR trainer: it broke", "error"),
        ("[CRITICAL] no", "error"),
        ("error: no such file", "error"),
        ("ValueError: no", "error"),
        ("torch.OutOfMemoryError: CUDA out of memory", "error"),
        ("WARNING:root:careful", "warning"),
        ("x.py:3: UserWarning: it is old", "warning"),
        ("FutureWarning: it goes", "warning"),
        ("INFO loading", "info"),
        ("DEBUG: details", "debug"),
        ("{'loss': 0.5}", None),
        ("mean absolute error: 0.5", None),
        ("no ERRORS at all", None),
        ("0 warnings", None),
        ("", None),
    ],
)
def test_a_level_is_told_by_the_words_that_logging_and_python_write(text: str, level: str | None) -> None:
    assert Judge().level(text)[0] == level


def begun(text: str) -> list[str | None]:
    """The levels of what begins in a text."""
    judge = Judge()
    judged = [judge.level(line) for line in text.split("\n")]
    return [level for level, is_new in judged if is_new]


def test_a_traceback_is_one_error_and_each_of_its_lines_is_of_it() -> None:
    judge = Judge()
    assert {judge.level(line)[0] for line in TRACEBACK.split("\n")} == {"error"}
    assert begun(TRACEBACK) == ["error"]


def test_what_a_logger_says_before_its_traceback_is_the_same_error() -> None:
    assert begun(f"ERROR it broke\n{TRACEBACK}\nINFO going on") == ["error", "info"]


def test_tracebacks_that_are_chained_are_one_error() -> None:
    between = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    assert begun(TRACEBACK + between + TRACEBACK) == ["error"]


def test_two_tracebacks_with_something_between_are_two_errors() -> None:
    assert begun(f"{TRACEBACK}\nstep 5\n{TRACEBACK}") == ["error", "error"]


def test_a_rank_before_each_line_changes_nothing() -> None:
    ranked = "\n".join(f"[rank0]: {line}" for line in TRACEBACK.split("\n"))
    assert begun(ranked) == ["error"]


def test_a_traceback_that_was_cut_off_ends_with_what_follows() -> None:
    assert begun('Traceback (most recent call last):\n  File "x"\nINFO again') == ["error", "info"]


LINES = [
    *TRACEBACK.split("\n"), "", "  ", "step 5", "{'loss': 0.5}", "INFO x", "WARNING x", "ERROR x", "error: x", "fatal: x",
    "warning: x", "CRITICAL", "FATAL", "DEBUG x", "UserWarning: x", "KeyboardInterrupt", "SystemExit: 1",
    "StopIteration", "ExceptionGroup: x", "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:", "[rank0]: Traceback (most recent call last):",
    "[rank1]: plain", "[rank1]:",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_lines_that_tell_nothing_are_passed_over_without_a_difference(lines: list[str]) -> None:
    short, whole = Judge(), Judge()
    assert [short.level(line) for line in lines] == [whole.level_of_telling(line) for line in lines]
