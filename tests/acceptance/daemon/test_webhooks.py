"""Webhooks of a real daemon, which is killed while a delivery is under way; and the command line for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from tests.acceptance.daemon.process import PATIENCE_S, Daemon, eventually, running

from finetuned.cli.main import execute


class Receiver(ThreadingHTTPServer):
    """Keeps what comes, and answers when it may."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _body in self.received]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.server.may_answer.wait(PATIENCE_S)
        try:
            self.send_response(200)
            self.end_headers()
        except OSError:
            pass  # whoever asked was killed

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def hooked(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that may call this machine."""
    config = tmp_path / "config.toml"
    config.write_text('outbound_allow = ["127.0.0.0/8"]\n')
    with running(FINETUNED_CONFIG=str(config)) as daemon:
        yield daemon


def test_a_delivery_that_a_kill_cut_off_comes_again_with_the_same_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    with hooked(tmp_path) as daemon:
        made = daemon.ok("POST", "/v1/webhooks", {"url": receiver.url, "types": ["job.succeeded"]})
        receiver.may_answer.clear()
        job_id = daemon.submit(steps=1)
        eventually(lambda: receiver.received, what="the delivery")
        daemon.kill()  # the receiver has it, and nobody knows
        receiver.may_answer.set()
        daemon.start()
        eventually(lambda: len(receiver.received) == 2, what="the delivery again")
        assert receiver.ids[0] == receiver.ids[1]
        for headers, body in receiver.received:
            assert Webhook(made["secret"]).verify(body, headers)["stream"] == f"job/{job_id}"

        # An orderly stop keeps what was delivered: nothing comes twice.
        def is_sent() -> bool:
            shown = daemon.ok("GET", f"/v1/webhooks/{made['id']}")
            return bool(shown["lag"] == 0)

        eventually(is_sent, what="the deliveries' end")
        daemon.stop()
        daemon.start()
        daemon.submit(steps=1)
        eventually(lambda: len(receiver.received) == 3, what="another delivery")
        assert receiver.ids[2] != receiver.ids[1]


def test_a_daemon_stops_at_once_while_a_receiver_does_not_answer(tmp_path: Path, receiver: Receiver) -> None:
    with hooked(tmp_path) as daemon:
        daemon.ok("POST", "/v1/webhooks", {"url": receiver.url, "types": ["job.submitted"]})
        receiver.may_answer.clear()
        daemon.submit(steps=1)
        eventually(lambda: receiver.received, what="the delivery")
        assert daemon.stop() == 0


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against a daemon; its exit code and what it wrote."""

    def run(daemon: Daemon, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("FINETUNED_SOCKET", str(daemon.socket))
        monkeypatch.delenv("FINETUNED_URL", raising=False)
        written = StringIO()
        with redirect_stdout(written), redirect_stderr(written):
            code = execute(list(arguments))
        return code, written.getvalue()

    return run


def test_the_command_line_makes_mends_and_removes_one(
    tmp_path: Path, receiver: Receiver, finetune: Run
) -> None:
    with hooked(tmp_path) as daemon:
        code, text = finetune(daemon, "webhooks", "add", receiver.url, "--type", "job.*", "--json")
        made = json.loads(text)
        assert code == 0
        assert made["secret"].startswith("whsec_")
        assert made["id"] in finetune(daemon, "webhooks")[1]
        code, text = finetune(daemon, "webhooks", "test", made["id"])
        assert code == 0
        assert "the receiver answered 200" in text
        code, text = finetune(daemon, "webhooks", "rotate", made["id"], "--keep", "1h")
        assert code == 0
        assert "whsec_" in text
        assert "no more" in finetune(daemon, "webhooks", "rotate", made["id"], "--now")[1]
        assert finetune(daemon, "webhooks", "replay", made["id"], "--after", "0")[0] == 0
        assert finetune(daemon, "webhooks", "replay", made["id"])[0] == 2
        assert finetune(daemon, "webhooks", "enable", made["id"])[0] == 0
        assert f"sends job.* to {receiver.url}" in finetune(daemon, "webhooks", "show", made["id"])[1]
        assert finetune(daemon, "webhooks", "rm", made["id"])[0] == 0
        assert finetune(daemon, "webhooks", "show", made["id"])[0] == 3
        code, text = finetune(daemon, "webhooks", "add", "https://10.0.0.1/", "--type", "*")
        assert code == 2
        assert "outbound_allow" in text


def test_a_test_that_is_not_taken_is_told_by_the_exit_code(
    tmp_path: Path, receiver: Receiver, finetune: Run
) -> None:
    with hooked(tmp_path) as daemon:
        made = daemon.ok("POST", "/v1/webhooks", {"url": receiver.url, "types": ["job.*"]})
        receiver.server_close()
        code, text = finetune(daemon, "webhooks", "test", made["id"])
        assert code == 1
        assert text.startswith("Not taken")
