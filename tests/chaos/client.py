"""A client whose answers get lost: it sends, may hang up before it reads, and may ask again under the same key."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.acceptance.daemon.process import UnixConnection
from tests.chaos.history import FAILED, OK, History, Operation
from tests.chaos.server import AWAY

REFUSED = frozenset({400, 403, 404, 409, 413, 422})  # nothing was done for this one
DEFINITE = REFUSED | {200, 201}


class Client:
    """Operations on one daemon. ``lost`` is the share of requests whose answer is not read."""

    def __init__(self, socket: Path, history: History, chance: random.Random, *, lost: float = 0.2) -> None:
        self._socket = socket
        self._history = history
        self._chance = chance
        self._lost = lost
        self._count = 0

    def submit(self, kind: str, params: Mapping[str, Any], **request: Any) -> Operation:
        """Submit a job under a name of its own."""
        name = f"op-{self._key()}"
        body = {"kind": kind, "params": dict(params), "name": name, **request}
        return self._carry_out(Operation("submit", self._key(), name=name), "/v1/jobs", body)

    def ask(self, what: str, job: str) -> Operation:
        """Cancel, pause, resume or checkpoint a job."""
        return self._carry_out(Operation(what, self._key(), job=job), f"/v1/jobs/{job}/{what}", {})

    def _key(self) -> str:
        self._count += 1
        return f"{self._chance.getrandbits(64):016x}-{self._count}"

    def _carry_out(self, operation: Operation, path: str, body: Mapping[str, Any]) -> Operation:
        """Send until there is an answer, or until giving up: then nobody knows."""
        self._history.invoke(operation)
        patience = time.monotonic() + self._chance.choice((0.0, 2.0, 20.0, 20.0))
        while True:
            with suppress(*AWAY):  # it went, or is not there
                self._send(operation, path, body)
            if (operation.answers and operation.answers[-1][0] in DEFINITE) or time.monotonic() > patience:
                return operation
            time.sleep(self._chance.uniform(0.01, 0.2))

    def _send(self, operation: Operation, path: str, body: Mapping[str, Any]) -> None:
        connection = UnixConnection(self._socket, timeout=20)
        try:
            connection.connect()
            operation.sent += 1
            operation.unread += 1
            headers = {"Content-Type": "application/json", "Idempotency-Key": operation.key}
            connection.request("POST", path, json.dumps(body), headers)
            if self._chance.random() < self._lost:
                time.sleep(self._chance.choice((0.0, 0.0, 0.01)))
                return  # the answer is lost
            response = connection.getresponse()
            answer = json.loads(response.read())
            operation.unread -= 1
        finally:
            connection.close()
        job = answer.get("id") if response.status in {200, 201} else None
        operation.answers.append((response.status, job or str(answer)[:200]))
        if job is not None:
            operation.outcome = OK
            operation.job = job
        elif response.status in REFUSED and not operation.unread:
            operation.outcome = FAILED  # else one that was sent before may be carried out after this refusal
