"""Counting lines of output, piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuned.output import search as log_search
from finetuned.output.lines import Splitter
from finetuned.output.search import Count, LineReader

PIECES = st.sampled_from(
    [
        "\n",
        "\n\n\n",
        "ERROR it\n",
        "Traceback (most recent call last):\n",
        "  File\n",
        "ValueError: no\n",
        "text",
        " \n",
    ]
)


def counted(directory: Path) -> Count:
    count = Count()
    while not count.is_end:
        count.go_on(directory, is_final=True)
    return count


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=30))
def test_counts_are_those_of_all_lines_though_empty_ones_are_passed_over(
    tmp_path: Path, pieces: list[str]
) -> None:
    (tmp_path / "output.log").write_text("".join(pieces))
    lines = list(LineReader(tmp_path).read(1 << 30, is_final=True))
    new = [each.level for each in lines if each.is_new]
    count = counted(tmp_path)
    assert (count.lines, count.errors, count.warnings) == (
        len(lines),
        new.count("error"),
        new.count("warning"),
    )


def test_a_run_of_empty_lines_is_counted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    finish = Splitter._finish

    def counting(splitter: Splitter, end: int) -> object:
        nonlocal made
        made += 1
        return finish(splitter, end)

    monkeypatch.setattr(Splitter, "_finish", counting)
    (tmp_path / "output.log").write_bytes(b"a\n" + b"\n" * (3 << 20) + b"b\n")
    assert counted(tmp_path).lines == (3 << 20) + 2
    assert made == 2


def test_one_piece_of_short_lines_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"a\n" * (2 << 20))
    count = Count()
    cost = count.go_on(tmp_path, is_final=True)
    assert not count.is_end
    assert count.lines * (log_search.LINE_COST + 2) == cost
    assert cost < log_search.COUNTED_BYTES
