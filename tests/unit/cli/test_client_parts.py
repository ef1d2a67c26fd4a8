from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned import views, wire
from finetuned.client import Client
from finetuned.client.endpoint import Endpoint, find_endpoint
from finetuned.client.errors import error_from
from finetuned.client.sse import Frame, Parser
from finetuned.domain import errors
from finetuned.views import models as views_models

WIRE = (
    b"retry: 2000\n\n"
    b": comment\nid: 7\n\n"
    b'id: 8\nevent: job.progress\ndata: {"a":\ndata: 1}\n\n'
    b"data:no space\r\n\r\n"
    b"event: reset\nid: 9\ndata\n\n"
    b"unknown: field\nid: 10\n\n"
    b"data: never ended"
)
FRAMES = [
    Frame("message", None, "7"),
    Frame("job.progress", '{"a":\n1}', "8"),
    Frame("message", "no space", None),
    Frame("reset", "", "9"),
    Frame("message", None, "10"),
]


def test_frames_are_read_as_the_standard_says() -> None:
    assert list(Parser().feed(WIRE)) == FRAMES


@given(st.lists(st.integers(0, len(WIRE)), max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = Parser()
    frames: list[Frame] = []
    edges = [0, *sorted(cuts), len(WIRE)]
    for start, end in pairwise(edges):
        frames += parser.feed(WIRE[start:end])
    assert frames == FRAMES


def test_a_character_that_was_cut_in_two_is_whole_again() -> None:
    parser = Parser()
    wire = "data: ü\n\n".encode()
    assert [*parser.feed(wire[:7]), *parser.feed(wire[7:])] == [Frame("message", "ü", None)]


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """A user's environment. Its directory has a short path: that of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="fth-") as directory:
        yield {"HOME": directory, "XDG_CONFIG_HOME": f"{directory}/none"}


def test_a_url_comes_before_a_socket(home: dict[str, str]) -> None:
    found = find_endpoint(
        home | {"FINETUNED_URL": "http://h:1/", "FINETUNED_TOKEN": "t", "FINETUNED_SOCKET": "/s"}
    )
    assert found == Endpoint(url="http://h:1/", token="t")
    assert found.base_url == "http://h:1"
    assert "http://h:1/" in found.remedy


def test_a_named_socket_comes_before_the_configuration(home: dict[str, str]) -> None:
    found = find_endpoint(home | {"FINETUNED_SOCKET": "/s", "FINETUNED_STATE_DIR": "/x"})
    assert found == Endpoint(socket=Path("/s"))
    assert str(found) == "/s"


def test_a_named_state_directory_is_used_even_if_no_daemon_is_there(
    home: dict[str, str], tmp_path: Path
) -> None:
    system = tmp_path / "system.sock"
    system.touch()
    found = find_endpoint(home | {"FINETUNED_STATE_DIR": "/x"}, system_socket=system)
    assert found.socket == Path("/x/finetuned.sock")


def test_the_users_own_daemon_comes_before_the_systems(home: dict[str, str], tmp_path: Path) -> None:
    system = tmp_path / "system.sock"
    own = Path(home["HOME"]) / ".local" / "state" / "finetuned" / "finetuned.sock"
    assert find_endpoint(home, system_socket=system).socket == own
    system.touch()
    assert find_endpoint(home, system_socket=system).socket == system
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_endpoint(home, system_socket=system).socket == own


def test_the_configuration_file_names_the_socket(home: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("socket = '/run/x.sock'\n")
    assert find_endpoint(home | {"FINETUNED_CONFIG": str(file)}).socket == Path("/run/x.sock")


@pytest.mark.parametrize(
    "error",
    [
        errors.Rejected("job_live", "It runs.", param="id"),
        errors.InvalidRequestError("No.", param="kind", code="unknown_kind"),
        errors.NotFoundError("None."),
        errors.AuthenticationError("Who?"),
        errors.PermissionDeniedError("You may not."),
        errors.TooLargeError("Less."),
        errors.StorageFullError("Full."),
        errors.UnavailableError("Later."),
        errors.EngineBusyError("Too many."),
        errors.EngineFailedError("It cannot load."),
        errors.FinetunedError("Broken."),
    ],
)
def test_an_error_is_the_same_on_both_ends(error: errors.FinetunedError) -> None:
    told = {"code": error.stable_code, "message": error.message, "param": error.param, "type": error.kind}
    found = error_from(error.status, {"error": told})
    assert type(found) is type(error)
    assert (found.message, found.param, found.stable_code) == (error.message, error.param, error.stable_code)
    assert found.exit_code == error.exit_code


def shown_keys(function: str) -> set[str]:
    """The keys of the dictionary that a function of ``finetuned.views`` returns."""
    module = views_models if function in {"model", "alias"} else views
    tree = ast.parse(Path(module.__file__ or "").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    returned = next(node.value for node in ast.walk(body) if isinstance(node, ast.Return))
    assert isinstance(returned, ast.Dict)
    return {
        key.value for key in returned.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


@pytest.mark.parametrize("name", ["Event", "Job", "Attempt", "Model", "Alias", "Kind", "Token", "Device"])
def test_the_clients_types_have_the_keys_that_the_daemon_shows(name: str) -> None:
    shape: Any = getattr(wire, name)
    assert shape.__required_keys__ == shown_keys(name.lower())


async def test_a_client_that_was_not_opened_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client(Endpoint(socket=Path("/s"))).jobs()
