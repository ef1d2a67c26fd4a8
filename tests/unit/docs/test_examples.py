"""What the documentation shows as code can be read by whatever it is for."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import click
import pytest
from tests.unit.docs import pages

from finetuned import config
from finetuned.cli.main import finetune
from finetuned.domain.errors import ConfigError

COMMAND = re.compile(r"`finetune ((?:[a-z][a-z-]* ?)+)")
PACKAGING = {"project", "build-system", "tool"}  # tables of a pyproject.toml


@pytest.mark.parametrize(("page", "text"), pages.every_block("python"))
def test_python_compiles(page: str, text: str) -> None:
    compile(text, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize(("page", "text"), pages.every_block("json"))
def test_json_is_json_but_for_what_an_ellipsis_leaves_out(page: str, text: str) -> None:
    json.loads(re.sub(r",\s*…(?=\s*[\]}])", "", text))


@pytest.mark.parametrize(("page", "text"), pages.every_block("toml"))
def test_toml_is_a_configuration_of_the_daemon_or_of_a_package(page: str, text: str, tmp_path: Path) -> None:
    if set(tomllib.loads(text)) & PACKAGING:
        return
    file = tmp_path / "config.toml"
    file.write_text(text, "utf-8")
    config.load(file, {}, {"HOME": "/home/ada"})


def test_a_setting_that_is_none_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        test_toml_is_a_configuration_of_the_daemon_or_of_a_package("a page", "max_atempts = 3\n", tmp_path)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_an_openai_client_is_shown_with_the_daemons_own_address(page: Path) -> None:
    listen = config.Config.model_fields["listen"].default
    bases = re.findall(r"OpenAI\(\s*base_url=\"(.*?)\"", page.read_text("utf-8"))
    assert set(bases) <= {f"http://{listen}/v1"}


def unknown(words: list[str]) -> str | None:
    """The first word that should be a command and is none."""
    command: click.Command = finetune
    for word in words:
        if not isinstance(command, click.Group):
            return None
        found = command.get_command(click.Context(command), word)
        if found is None:
            return word
        command = found
    return None


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_each_command_that_is_named_in_a_sentence_is_there(page: Path) -> None:
    named = [words.split() for words in COMMAND.findall(pages.prose(page))]
    assert [each for each in map(unknown, named) if each is not None] == []


def test_a_command_that_is_none_would_be_found() -> None:
    assert unknown(["log", "rotate"]) == "rotate"
