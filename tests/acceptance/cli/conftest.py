from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.acceptance.cli.fake_daemon import FakeDaemon

from finetuned.cli.main import execute


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Outcome]
Apart = Callable[..., tuple[int, str, str]]


def apart(capsys: pytest.CaptureFixture[str]) -> Apart:
    """Runs command lines beside a daemon of this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        codes: list[int] = []  # in a thread: the command has an event loop of its own
        thread = threading.Thread(target=lambda: codes.append(execute(list(arguments))))
        thread.start()
        thread.join()
        said = capsys.readouterr()
        return codes[0], said.out, said.err

    return run


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="ftc-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        yield path


@pytest.fixture
def daemon(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A fake daemon that the command line finds by its socket."""
    for name in ("FINETUNED_URL", "FINETUNED_TOKEN", "FINETUNED_DEBUG", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeDaemon(directory / "d.sock")
    monkeypatch.setenv("FINETUNED_SOCKET", str(fake.socket))
    with fake:
        yield fake


@pytest.fixture
def finetune(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run one command line in this process."""

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = execute(list(arguments))
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run
