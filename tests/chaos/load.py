"""Load: clients that submit short jobs, and pause, resume, save and cancel them, at random."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from tests.chaos.client import Client
from tests.chaos.history import FAILED, History, Operation

Request = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # kind, params, and the rest of the request


def short_job(chance: random.Random) -> Request:
    """A job of a few steps: some save checkpoints, some crash and are tried again, some have children."""
    params: dict[str, Any] = {
        "steps": chance.randint(0, 12),
        "step_seconds": chance.choice((0.0, 0.02, 0.1)),
        "output_lines": chance.randint(0, 3),
    }
    if chance.random() < 0.5:
        params["checkpoint_every"] = chance.randint(1, 4)
    if chance.random() < 0.1:
        params |= {"crash_at": 2, "fail_attempts": 1}
    if chance.random() < 0.2:
        params["spawn_children"] = 1
    kind = "quick" if chance.random() < 0.8 else "fake"
    return kind, params, {"priority": chance.randint(-2, 2), "max_attempts": 6}


class Load:
    """Clients on threads. ``most`` is how many jobs may be open at once; further ones wait until others are ended."""

    def __init__(
        self,
        client: Callable[[random.Random], Client],
        history: History,
        chances: list[random.Random],
        *,
        make: Callable[[random.Random], Request] = short_job,
        most: int = 8,
        pause_s: float = 0.08,
        steers: bool = True,
    ) -> None:
        self._client = client
        self._history = history
        self._make = make
        self._most = most
        self._pause_s = pause_s
        self._steers = steers
        self._open: set[str] = set()
        self._paused: set[str] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(chance,)) for chance in chances]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        client = self._client(chance)
        while not self._over.wait(chance.uniform(0, 2 * self._pause_s)):
            job = self._chosen(chance)
            if job is None:
                kind, params, rest = self._make(chance)
                self._note(client.submit(kind, params, **rest))
            elif self._steers:
                what = "resume" if job in self._paused and chance.random() < 0.7 else chance.choice(STEERING)
                self._note(client.ask(what, job))

    def _chosen(self, chance: random.Random) -> str | None:
        """A job to steer; ``None`` to submit another."""
        with self._lock:
            if self._open and (len(self._open) >= self._most or chance.random() < 0.5):
                return chance.choice(sorted(self._open))
        return None

    def _note(self, done: Operation) -> None:
        if done.job is None:
            return
        with self._lock:
            if done.what == "submit":
                self._open.add(done.job)
            elif done.what == "cancel":
                self._open.discard(done.job)
            elif done.outcome == FAILED:
                self._paused.discard(done.job)
            elif done.what == "pause":
                self._paused.add(done.job)
            elif done.what == "resume":
                self._paused.discard(done.job)


STEERING = ("cancel", "pause", "pause", "checkpoint")
