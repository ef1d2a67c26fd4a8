"""Each command line that the documentation shows is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from finetuned.cli.main import finetune

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown(page: Path) -> list[str]:
    """The command lines in a page's console blocks."""
    blocks = re.findall(
        r"^```(?:console|sh|bash)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    text = "\n".join(blocks).replace("\\\n", " ")
    return re.findall(r"^(?:\$ )?(finetune .*)$", text, flags=re.MULTILINE)


LINES = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in shown(page)]


def check(arguments: list[str]) -> None:
    """Parse as far as the command itself. Raises ``click.UsageError``."""
    command: click.Command = finetune
    context = click.Context(command, info_name="finetune")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.parse_args(context, arguments)


def test_the_tutorial_shows_commands() -> None:
    assert sum(page == "docs/tutorial/first-model.md" for page, _ in LINES) > 8


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_in_the_documentation_can_be_typed(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    for end in ("|", "&", ">", "&&", ";"):
        if end in words:
            words = words[: words.index(end)]
    check(words[1:])


@pytest.mark.parametrize("line", ["finetune run sft --dta x", "finetune nothing", "finetune show"])
def test_one_that_cannot_be_typed_would_be_found(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        check(shlex.split(line)[1:])
