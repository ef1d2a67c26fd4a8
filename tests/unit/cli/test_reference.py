"""docs/reference/cli.md has a heading for each command and names each of its options."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from finetuned.cli import ending, main
from finetuned.client.errors import UnexpectedAnswerError, UnreachableError
from finetuned.domain import errors

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("cli_reference", REFERENCE.parent / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_say_what_the_program_says() -> None:
    told = "run python docs/reference/generate_cli.py: {} is out of date"
    current = REFERENCE.read_text()
    assert current == generator().cli_page(current), told.format("cli.md")
    shapes = REFERENCE.with_name("cli-json.md").read_text()
    assert shapes == generator().json_page(), told.format("cli-json.md")


def test_what_is_written_by_hand_below_the_options_stays() -> None:
    current = REFERENCE.read_text()
    note = "A live job cannot be retried (exit code 4)."
    assert note in generator().cli_page(current)
    changed = current.replace("Ask a job to end.\n", "Something else.\n")
    assert generator().cli_page(changed) == current


@pytest.mark.parametrize(
    "each", ["`finetune ls` | [Listing](#listing) of [Job](#job)", "## ShownJob", "| `timeline` |"]
)
def test_the_shapes_of_json_are_documented(each: str) -> None:
    assert each in REFERENCE.with_name("cli-json.md").read_text()


def tree(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from tree(below, f"{path} {name}")
    if path != "finetune":
        yield path, command


COMMANDS = dict(tree(main.finetune, "finetune"))


def sections() -> dict[str, str]:
    parts = re.split(r"^#+ `?(finetune[^`\n]*)`?$", REFERENCE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_there_is_a_heading_for_each_command_and_for_nothing_else() -> None:
    assert sorted(sections()) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_each_option_and_argument_is_in_its_commands_section(path: str) -> None:
    section = sections()[path]
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *parameter.secondary_opts]
        else:
            names = [parameter.make_metavar(click.Context(COMMANDS[path])).strip("[]")]
        for name in names:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", section), f"{path}: {name}"


@pytest.mark.parametrize("path", COMMANDS)
def test_no_section_names_an_option_that_is_not_there(path: str) -> None:
    known = {name for parameter in COMMANDS[path].params for name in (*parameter.opts, "--help")}
    named = set(re.findall(r"^\| `(--?[a-z][a-z-]*)", sections()[path], flags=re.MULTILINE))
    assert named <= known


@pytest.mark.parametrize(
    "path", [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)]
)
def test_every_command_takes_json(path: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_table_of_commands_says_what_each_says_of_itself(name: str) -> None:
    module, text = main.COMMANDS[name]
    command = getattr(importlib.import_module(f"finetuned.cli.{module}"), name.replace("-", "_"))
    assert command.get_short_help_str(limit=200).rstrip(".") == text.rstrip(".")


def exit_codes() -> dict[int, str]:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", REFERENCE.read_text(), flags=re.MULTILINE)
    return {int(code): text for code, text in rows}


def test_every_exit_code_is_documented() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    raised = {each.exit_code for each in classes if issubclass(each, errors.FinetunedError)}
    raised |= {UnreachableError.exit_code, UnexpectedAnswerError.exit_code}
    raised |= {0, ending.NOT_SUCCEEDED, main.DEFECT, main.INTERRUPTED, main.BROKEN_PIPE}
    assert raised <= set(exit_codes())
