"""``finetune chat``, and aliases on the command line, against the real application with a fake engine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from tests.acceptance.cli.conftest import Apart, apart

from finetuned.domain import facts
from finetuned.domain.streams import event
from finetuned.testing import House, serve_house


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A served daemon with a model ``small``, on a loop of its own."""
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="ft-") as state,
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve_house(Path(state))) as served,
    ):
        for name in ("small", "large"):
            fact = facts.ModelRegistered(
                name=name, path=str(tmp_path_factory.mktemp(name)), kind="model", base=None, job=None
            )
            portal.call(served.log.append, [event(f"model/{name}", fact, "test")])
        monkeypatch.setenv("FINETUNED_SOCKET", str(served.addresses.socket))
        monkeypatch.delenv("FINETUNED_URL", raising=False)
        yield served


@pytest.fixture
def finetune(house: House, capsys: pytest.CaptureFixture[str]) -> Apart:
    return apart(capsys)


def test_a_question_is_answered(finetune: Apart) -> None:
    assert finetune("chat", "small", "one two three") == (0, "one two three\n", "")


def test_an_answer_as_json_is_openais(finetune: Apart) -> None:
    import json

    code, out, _ = finetune("chat", "small", "one two three", "--max-tokens", "2", "--json")
    assert code == 0
    assert json.loads(out)["choices"][0]["message"]["content"] == "one two"


def test_a_conversation_is_read_line_by_line(finetune: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo three\n"))
    assert finetune("chat", "small") == (0, "one\ntwo three\n", "")


def test_a_model_that_there_is_not_is_named_with_the_nearest(finetune: Apart) -> None:
    code, _, err = finetune("chat", "smal", "hello")
    assert code == 3
    assert "'small'" in err


def test_what_the_engine_refuses_is_said(finetune: Apart) -> None:
    code, _, err = finetune("chat", "small", "hello", "--temperature", "3")
    assert code == 2
    assert "temperature must be from 0 to 2" in err


def test_json_without_a_question_is_refused(finetune: Apart) -> None:
    code, _, err = finetune("chat", "small", "--json")
    assert code == 2
    assert "QUESTION" in err


def test_an_alias_is_promoted_listed_rolled_back_and_freed(finetune: Apart) -> None:
    assert finetune("models", "promote", "small", "--as", "bot@live")[1] == "bot@live stands for small.\n"
    assert "before: small" in finetune("models", "promote", "large", "--as", "bot@live")[1]
    assert "bot@live" in finetune("models", "aliases")[1]
    assert "bot@live" in finetune("models")[1]
    assert finetune("chat", "bot@live", "hi")[1] == "hi\n"
    assert finetune("models", "rollback", "bot@live")[1] == "bot@live stands for small.\n"
    assert finetune("models", "rollback", "bot@live")[0] == 4
    assert finetune("models", "unalias", "bot@live")[0] == 0
    assert "No aliases" in finetune("models", "aliases")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "promote", "small", "--as", "a@b"),
        ("models", "aliases"),
        ("models", "rollback", "x@y"),
        ("models", "unalias", "x@y"),
    ],
)
def test_everything_about_aliases_is_json_too(finetune: Apart, arguments: tuple[str, ...]) -> None:
    import json

    finetune("models", "promote", "small", "--as", "x@y")
    finetune("models", "promote", "large", "--as", "x@y")
    code, out, _ = finetune(*arguments, "--json")
    assert code == 0
    found: Any = json.loads(out)
    assert found
