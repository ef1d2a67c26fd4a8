"""Where the value of a secret comes from."""

from __future__ import annotations

import io

import click
import pytest

from finetuned.cli import secrets
from finetuned.domain.errors import InvalidRequestError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_value_is_read_from_a_pipe_without_the_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hf_abcdefgh\n"))
    assert secrets._value() == "hf_abcdefgh"


def test_on_a_terminal_it_is_asked_for_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append({"text": text, **options})
        return "hf_abcdefgh"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    assert secrets._value() == "hf_abcdefgh"
    assert asked == [{"text": "Value", "hide_input": True, "err": True}]


@pytest.mark.parametrize("given", ["", "\n", "  "])
def test_no_value_is_refused_with_how_to_give_one(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    with pytest.raises(InvalidRequestError, match="finetune secrets set hf < FILE"):
        secrets._value()
