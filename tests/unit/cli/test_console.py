"""What a terminal gets and what a pipe gets."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from finetuned.cli import console, tables


def a_table() -> Table:
    shown = tables.table("NAME", "STATE")
    shown.add_row("first", "[bold red]running")
    return shown


def test_a_terminal_gets_a_table_of_its_own_width_with_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=30, color_system="standard", _environ={})
    monkeypatch.setattr(console, "stdout", lambda: terminal)
    console.show(a_table())
    assert "\x1b[" in screen.getvalue()
    assert "first" in screen.getvalue()


def test_a_pipe_gets_lines_without_styles_or_trailing_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(a_table())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_a_table_without_rows_is_a_sentence_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(tables.table("NAME"), empty="There is nothing.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "There is nothing.\n")
