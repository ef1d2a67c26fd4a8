"""Each command that a sentence of the program names is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from tests.unit.cli.test_tutorials import check

ROOT = Path(__file__).parents[3]
SOURCES = sorted(file for folder in ("daemon", "plugins", "events") for file in (ROOT / folder).rglob("*.py"))


def named(source: str) -> set[str]:
    """The commands in backticks, and the texts that are commands as a whole; values are a 1."""
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # a sentence over several lines
    found = re.findall(r"`(finetune [^`\n]+)`", joined) + re.findall(r'f?"(finetune [a-z][^"\n]+)"', joined)
    return {
        re.sub(r"\{[^}]*\}", "1", each).replace("…", "").replace("[", "").replace("]", "") for each in found
    }


LINES = sorted({(file.name, line) for file in SOURCES for line in named(file.read_text(encoding="utf-8"))})


def problem(line: str) -> str | None:
    """Why a command cannot be typed; what only lacks an argument is a name of the command."""
    words = shlex.split(line)
    for end in ("|", "&", ">", "<", "&&", ";"):
        if end in words:
            words = words[: words.index(end)]
    try:
        check(words[1:])
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
        return None
    except (click.UsageError, AssertionError) as error:
        return str(error)
    return None


def test_there_are_many() -> None:
    assert len(LINES) > 60


@pytest.mark.parametrize(("file", "line"), LINES)
def test_a_command_in_a_sentence_can_be_typed(file: str, line: str) -> None:
    assert problem(line) is None, file


@pytest.mark.parametrize("line", ["finetune shw 1", "finetune show 1 --now", "finetune models rm a b"])
def test_one_that_cannot_be_typed_would_be_found(line: str) -> None:
    assert problem(line) is not None
