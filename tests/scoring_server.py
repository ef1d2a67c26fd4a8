"""A server of the completions API on a loopback port that says what a test wants, once it has had its troubles."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

Json = Any
Trouble = Callable[["Handler"], None]


class ScoringServer:
    """Answers each request with what ``answer`` makes of its body, after the first ones had a trouble each."""

    def __init__(self, answer: Callable[[Json], Json], *troubles: Trouble) -> None:
        self.answer = answer
        self.troubles = deque(troubles)
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self.asked = threading.Event()
        self.server = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def next_trouble(self) -> Trouble:
        """What becomes of a request."""
        try:
            return self.troubles.popleft()
        except IndexError:
            return lambda handler: handler.tell(200, self.answer(handler.body))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Quiet(ThreadingHTTPServer):
    """Does not mind clients that go away."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    owner: ClassVar[ScoringServer]
    body: Json

    def do_POST(self) -> None:
        """Have the next trouble, or answer."""
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.owner.requests.append(self.body)
        self.owner.headers.append(dict(self.headers))
        self.owner.asked.set()
        if self.path != "/v1/completions":
            self.tell(404, {"error": f"there is no {self.path}"})
        else:
            self.owner.next_trouble()(self)

    def tell(self, status: int, content: Json, **headers: str) -> None:
        """Answer with JSON."""
        self.send(status, json.dumps(content).encode(), **headers)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        """Answer with bytes; ``headers`` have _ for -, and count for more than the usual ones."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def status(code: int, **headers: str) -> Trouble:
    """An answer that is an error."""
    return lambda handler: handler.tell(code, {"error": "as the test wants it"}, **headers)


def hang(handler: Handler) -> None:
    """No answer until the test is over."""
    handler.owner.released.wait()


def cut(handler: Handler) -> None:
    """An answer that breaks off."""
    handler.send(200, b'{"choices": [', Content_Length="1000")


def hang_up(handler: Handler) -> None:
    """The end of the connection, without an answer."""
    handler.connection.close()


def garbage(handler: Handler) -> None:
    """An answer that is no JSON."""
    handler.send(200, b"<html>Bad gateway</html>")


def edited(edit: Callable[[Json], None]) -> Trouble:
    """The answer, changed."""

    def tell(handler: Handler) -> None:
        answer = handler.owner.answer(handler.body)
        edit(answer)
        handler.tell(200, answer)

    return tell


def prompt_scores(ids: list[int], top_k: int, log_prob: Callable[[int, int], float]) -> list[Json]:
    """vLLM's ``prompt_logprobs`` of made-up scores, the likeliest tokens being the lowest ids."""
    entries: list[Json] = [None]
    for at, token in list(enumerate(ids))[1:]:
        told = {each: log_prob(at, each) for each in (*range(top_k), token)}
        entries.append(
            {
                str(each): {"logprob": value, "rank": 1, "decoded_token": f"t{each}"}
                for each, value in told.items()
            }
        )
    return entries
