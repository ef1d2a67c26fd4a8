"""What a terminal gets and what a pipe gets."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

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


NASTY = "a\x1b[31mred\x00\x07\x9b2J\x7f\u202eb"


def obeyed(text: str) -> set[str]:
    """What a terminal would act on, beside line ends."""
    return {each for each in text if each != "\n" and (ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0)} | (
        set(text) & {"\u202e"}
    )


def test_control_characters_in_a_table_a_sentence_or_a_field_are_shown_and_not_obeyed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = tables.table("NAME", "TEXT")
    shown.add_row(NASTY, Text(NASTY))
    console.show(shown)
    console.say(NASTY)
    console.say(Text(NASTY))
    console.note(NASTY)
    console.row(NASTY)
    captured = capsys.readouterr()
    assert obeyed(captured.out + captured.err) == set()
    assert captured.out.count("a␛[31mred␀") == 5


def test_what_is_shown_of_control_characters_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tables.table("ID", "NAME", "WHY")
    shown.add_row("job-1", Text("\x1b\x1b\x1b\x1bend"), "x")
    console.show(shown)
    assert capsys.readouterr().out.splitlines()[1] == "job-1  ␛␛␛␛end  x"


def test_a_field_has_neither_tabs_nor_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.row("a\tb\nc", 1)
    assert capsys.readouterr().out == "a␉b␊c\t1\n"


def test_json_means_what_it_did_and_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"name": NASTY})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": NASTY}
    assert obeyed(printed.replace("\u202e", "")) == set()


def test_markup_and_emoji_codes_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tables.table("PATH")
    shown.add_row("[/red] :smile: [bold]x[/bold]")
    console.show(shown)
    console.say(":smile: [bold]")
    assert capsys.readouterr().out.splitlines()[1:] == ["[/red] :smile: [bold]x[/bold]", ":smile: [bold]"]


def test_a_terminal_shows_its_own_styles_and_none_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = console._Console(
        file=screen, force_terminal=True, width=60, color_system="standard", _environ={}
    )
    monkeypatch.setattr(console, "stdout", lambda: terminal)
    console.say(Text(NASTY, "bold"))
    assert screen.getvalue().startswith("\x1b[1ma␛[31mred␀")
