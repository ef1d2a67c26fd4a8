"""A daemon that only pretends: the REST surface over plain lists, on a Unix socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

from aiohttp import web

Json = Any
DEADLINE = 20.0  # seconds

SFT_SCHEMA: dict[str, Json] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["model", "dataset"],
    "properties": {
        "model": {"type": "string", "description": "The base model."},
        "dataset": {"type": "string", "description": "The rows."},
        "dataset_format": {"anyOf": [{"enum": ["messages", "text"], "type": "string"}, {"type": "null"}]},
        "learning_rate": {"type": "number", "default": 0.0002},
        "max_steps": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "callbacks": {"type": "array", "items": {"$ref": "#/$defs/Callback"}, "default": []},
    },
    "$defs": {"Callback": {"type": "object", "properties": {"name": {"type": "string"}}}},
}


def a_job(job_id: str, **changes: Json) -> dict[str, Json]:
    """A job as the daemon shows it."""
    return {
        "id": job_id, "object": "job", "seq": 0, "kind": "sft", "name": None, "state": "queued", "phase": None,
        "params": {"model": "tiny"}, "priority": 0, "metadata": {}, "attempt": 0, "max_attempts": 3,
        "created_at": "2026-11-22T12:00:00.000000Z", "updated_at": "2026-11-22T12:00:00.000000Z",
        "started_at": None, "paused_at": None, "finished_at": None, "progress": None, "wait_reason": None,
        "queue_position": None, "retry_of": None, "resume_from": None, "estimate": None,
        "cancel_reason": None, "error": None, "result": None, "devices": [], "submitted_by": "uid:1000",
        "template": None, "datasets": {}, "secrets": {},
        "attempts": [], "checkpoints": [], "artifacts": [], "audits": [], "evaluations": [], "advice": [],
        "timeouts": {}, "limits": {}, "preemptible": False, "reduces_batch": True, "overrides": {}, "alerts": [],
        "pause_reason": None, "repeated_steps": None, "measured": None, "ignores_estimate": False,
    } | changes  # fmt: skip


class FakeDaemon:
    """Change its lists from the test; ``stop`` and ``start`` are a restart that keeps them."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.jobs: dict[str, dict[str, Json]] = {}
        self.foretold: dict[str, Json] = {}  # what a dry run is answered with
        self.becomes: dict[str, Json] = {"state": "paused"}  # of a job that is to pause or to save
        self.events: list[dict[str, Json]] = []
        self.models: list[dict[str, Json]] = []
        self.tokens: list[dict[str, Json]] = []
        self.devices: list[dict[str, Json]] = []
        self.kinds: list[dict[str, Json]] = [
            {"name": "sft", "object": "kind", "summary": "Fine-tunes.", "validates": True,
             "params_schema": SFT_SCHEMA, "dataset_params": ["dataset"]}
        ]  # fmt: skip
        self.datasets: dict[str, dict[str, Json]] = {}
        self.log_blocks: list[bytes] = []
        self.log_removed = 0  # bytes that were rotated away
        self.verify: dict[str, Json] = {
            "ok": True,
            "events": 3,
            "head": {"seq": 3, "hash": "ab"},
            "problems": [],
        }
        self.endings: dict[str, dict[str, Json]] = {}  # by kind, how its jobs end
        self.answers: dict[tuple[str, str], Json] = {}  # by method and path: JSON, (status, JSON), bytes
        self.content: dict[str, bytes] = {}  # by path, what can be downloaded
        self.refusal: tuple[int, Json] | None = None  # what every request is answered
        self.unfolds = False  # whether a job is shown as it was submitted until its end was streamed
        self.ends_told: set[str] = set()  # the streams whose end a client was sent
        self.lost_ends = 0  # requests for a job that are cut once its events were streamed
        self.hang_up = False  # whether connections are cut instead of answered
        self.authorization: str | None = None  # the newest request's
        self.url = ""  # the same over TCP
        self.requests: list[tuple[str, str, Json]] = []  # method, path with query, body
        self.cursors: list[str | None] = []  # Last-Event-ID of each stream
        self.cut_after: int | None = None  # events after which the next stream is cut
        self.beat_before_cut: int | None = None  # the heartbeat's id that comes before the cut
        self.reset_next = False  # whether the next stream says that the log was put back
        self.on_stream: Callable[[], None] | None = None  # called when a stream has sent what there is
        self.while_away: Callable[[], None] | None = None  # what happens during a restart
        self._stop: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    # ---- what tests do -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="fake-daemon")
        self._thread.start()
        assert ready.wait(DEADLINE)

    def stop(self) -> None:
        """Go, with every connection."""
        if self._thread is not None and self._stop is not None:
            self._stop()
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive()
            self._thread = None

    def restart_soon(self) -> None:
        """Stop and start again from another thread; ``while_away`` happens in between."""

        def restart() -> None:
            self.stop()
            if self.while_away is not None:
                self.while_away()
            self.start()

        threading.Thread(target=restart, name="restart").start()

    def happens(self, job_id: str, kind: str, data: Json = None, actor: str = "daemon") -> int:
        """Append an event; its seq."""
        seq = len(self.events) + 1
        stream = f"job/{job_id}"
        self.events.append(
            {
                "seq": seq,
                "stream": stream,
                "version": 1 + sum(event["stream"] == stream for event in self.events),
                "type": kind,
                "at": f"2026-11-22T12:{seq // 60:02d}:{seq % 60:02d}.000000Z",
                "actor": actor,
                "data": data or {},
            }
        )
        return seq

    def runs(self, job_id: str, *, steps: int = 3, ends: bool = True) -> None:
        """The story of a job that succeeds."""
        self.jobs[job_id] = a_job(job_id)
        submitted = {"validates": False, "retry_of": None}
        self.jobs[job_id]["seq"] = self.happens(job_id, "job.submitted", submitted, actor="uid:1000")
        self.happens(job_id, "attempt.starting", {"attempt": 1, "purpose": "run", "devices": ["cpu:0"]})
        self.happens(job_id, "attempt.started", {"attempt": 1})
        self.happens(job_id, "job.phase", {"phase": "training"})
        for step in range(1, steps + 1):
            figures = {"progress": 100 * step / steps, "current_step": step, "total_steps": steps}
            self.happens(job_id, "job.progress", {**figures, "loss": 1 / step, "eta_seconds": 1.0})
        if ends:
            self.ends(job_id)

    def ends(self, job_id: str, state: str = "succeeded", **changes: Json) -> None:
        """The end of a job."""
        data = changes.get("error") if state == "failed" else {"result": changes.get("result") or {}}
        self.jobs[job_id] |= {"state": state, "finished_at": "2026-11-22T12:01:30.000000Z", **changes}
        self.happens(job_id, f"job.{state}", data)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Poll until ``condition`` holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.01)

    # ---- the server --------------------------------------------------------------------------------------

    async def _serve(self, ready: threading.Event) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(stopping.set)

        self._stop = stop
        app = web.Application(middlewares=[self._middleware])
        app.add_routes(list(self._routes()))
        runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None, handler_cancellation=True)
        await runner.setup()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        await web.UnixSite(runner, str(self.socket)).start()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[1][1]}"
        ready.set()
        await stopping.wait()
        await runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        body = await _body(request)
        self.requests.append((request.method, request.path_qs, body))
        self.authorization = request.headers.get("Authorization")
        if self.hang_up:
            assert request.transport is not None
            request.transport.abort()
        if self.refusal is not None:
            status, answer = self.refusal
            if isinstance(answer, str):
                return web.Response(text=answer, status=status)
            return web.json_response(answer, status=status)
        if request.path in self.content:
            return web.Response(body=self.content[request.path], headers={"ETag": '"one"'})
        if (request.method, request.path) in self.answers:
            answer = self.answers[request.method, request.path]
            if isinstance(answer, bytes):
                return web.Response(body=answer)
            if isinstance(answer, tuple):
                return web.json_response(answer[1], status=answer[0])
            return web.json_response(answer() if callable(answer) else answer)
        return await handler(request)

    def _routes(self) -> Iterator[web.RouteDef]:
        yield web.post("/v1/jobs", self._submit)
        yield web.get("/v1/jobs", self._list_jobs)
        yield web.get("/v1/jobs/{id}", self._one_job)
        yield web.delete("/v1/jobs/{id}", self._ok)
        yield web.post("/v1/jobs/{id}/cancel", self._cancel)
        yield web.post("/v1/jobs/{id}/pause", self._pause)
        yield web.post("/v1/jobs/{id}/resume", self._resume)
        yield web.post("/v1/jobs/{id}/checkpoint", self._checkpoint)
        yield web.post("/v1/jobs/{id}/retry", self._retry)
        yield web.get("/v1/jobs/{id}/events", self._events)
        yield web.get("/v1/jobs/{id}/logs", self._logs)
        yield web.get("/v1/events", self._events)
        yield web.get("/v1/kinds", self._listing(lambda: self.kinds))
        yield web.get("/v1/kinds/{name}", self._named(lambda: self.kinds, "name"))
        yield web.get("/v1/models", self._listing(lambda: self.models))
        yield web.get("/v1/models/{name}", self._named(lambda: self.models, "id"))
        yield web.delete("/v1/models/{name}", self._ok)
        yield web.get("/v1/datasets", self._listing(lambda: list(self.datasets.values())))
        yield web.post("/v1/datasets", self._upload)
        yield web.get("/v1/datasets/{name}", self._named(lambda: list(self.datasets.values()), "id"))
        yield web.delete("/v1/datasets/{name}", self._ok)
        yield web.get("/v1/devices", self._listing(lambda: self.devices))
        yield web.get("/v1/tokens", self._listing(lambda: self.tokens))
        yield web.post("/v1/tokens", self._token)
        yield web.delete("/v1/tokens/{id}", self._ok)
        yield web.get("/v1/log", self._log)
        yield web.post("/v1/log/{what}", self._care)
        yield web.get("/readyz", self._ok)

    def _listing(self, items: Callable[[], list[dict[str, Json]]]) -> Any:
        async def handle(_request: web.Request) -> web.Response:
            return _page(items(), has_more=False, key="id")

        return handle

    def _named(self, items: Callable[[], list[dict[str, Json]]], key: str) -> Any:
        async def handle(request: web.Request) -> web.Response:
            for item in items():
                if item[key] == request.match_info["name"]:
                    return web.json_response(item)
            return _refused(404, "not_found", f"There is no {request.match_info['name']}.")

        return handle

    async def _ok(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.query.get("dry_run") == "true":
            return web.json_response(self.foretold)
        job_id = f"job-{len(self.jobs) + 1}"
        self.runs(job_id, ends=False)
        self.ends(job_id, **self.endings.get(body["kind"], {}))
        self.jobs[job_id] |= {"kind": body["kind"], "params": body["params"], "name": body.get("name")}
        return web.json_response(self.jobs[job_id] | {"state": "queued"}, status=201)

    async def _upload(self, request: web.Request) -> web.Response:
        content, name = await request.read(), request.query["name"]
        version = {
            "version": hashlib.sha256(content).hexdigest(), "path": f"/state/{name}", "bytes": len(content),
            "format": "jsonl", "source": "upload", "rows": content.count(b"\n"),
            "created_at": "2026-11-22T12:00:00.000000Z", "created_by": "uid:1000",
        }  # fmt: skip
        assert request.query["sha256"] == version["version"]
        dataset = self.datasets.setdefault(
            name, {"id": name, "object": "dataset", "reference": f"dataset:{name}", "versions": []}
        )
        dataset["versions"].insert(0, version)
        dataset |= {key: version[key] for key in ("version", "bytes", "format", "rows", "created_at")}
        return web.json_response(dataset, status=201)

    async def _list_jobs(self, request: web.Request) -> web.Response:
        listed = list(reversed(self.jobs.values()))
        if state := request.query.get("state"):
            listed = [job for job in listed if job["state"] == state]
        if after := request.query.get("after"):
            listed = listed[[job["id"] for job in listed].index(after) + 1 :]
        # Small pages, so that a client that wants everything must ask again.
        limit = min(int(request.query["limit"]), 2)
        return _page(listed[:limit], has_more=len(listed) > limit, key="id")

    async def _one_job(self, request: web.Request) -> web.Response:
        if self.cursors and self.lost_ends:
            self.lost_ends -= 1
            assert request.transport is not None
            request.transport.abort()
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _no_job()
        if self.unfolds and f"job/{job['id']}" not in self.ends_told:
            job = job | {"state": "queued", "finished_at": None}
        return web.json_response(job)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        if job["state"] == "succeeded":
            return _refused(409, "job_ended", f"Job {job['id']} has succeeded already.")
        job |= {"state": "cancelling"}
        return web.json_response(job)

    async def _pause(self, request: web.Request) -> web.Response:
        """Answer that it is pausing, and be as ``becomes`` says right after."""
        job = self.jobs[request.match_info["id"]]
        answer = job | {"state": "pausing", "seq": len(self.events)}
        self.happens(
            job["id"], f"job.{self.becomes['state']}", {"reason": "it left", "code": "c", "message": "m"}
        )
        job |= self.becomes
        return web.json_response(answer)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        answer = job | {"seq": len(self.events)}
        if self.becomes["state"] == "running":
            self.happens(job["id"], "checkpoint.saved", {"step": 7, "bytes": 2_000_000})
        else:
            self.happens(job["id"], f"job.{self.becomes['state']}", {})
            job |= self.becomes
        return web.json_response(answer)

    async def _resume(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        if job["state"] != "paused":
            return _refused(409, "job_not_paused", f"Job {job['id']} is {job['state']}.")
        job |= {"state": "queued"}
        return web.json_response(job)

    async def _retry(self, request: web.Request) -> web.Response:
        again = self.jobs.setdefault("job-again", a_job("job-again"))
        again["retry_of"] = request.match_info["id"]
        return web.json_response(again, status=201)

    async def _token(self, request: web.Request) -> web.Response:
        body = await request.json()
        token = {
            "id": "tok-1", "object": "token", "scope": body["scope"], "name": body.get("name"),
            "created_at": "2026-11-22T12:00:00.000000Z", "expires_at": None, "last_used_at": None,
            "revoked_at": None,
        }  # fmt: skip
        self.tokens.append(token)
        return web.json_response(token | {"token": "ft_1_secret"}, status=201)

    async def _log(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "log", "head": len(self.events)})

    async def _care(self, request: web.Request) -> web.Response:
        match request.match_info["what"]:
            case "verify":
                return web.json_response(self.verify)
            case "rebuild":
                table = {"projection": "world", "table": "jobs", "rows": 3, "equal": True}
                return web.json_response({"equal": True, "head": 3, "tables": [table], "swapped": []})
        body = await request.json()
        return web.json_response({"path": body["path"], "bytes": 4096, "head": {"seq": 3, "hash": "ab"}})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        start = max(int(request.query.get("after", "1:0").partition(":")[2]), self.log_removed)
        response = web.StreamResponse(headers={"Output-Position": f"1:{start}"})
        await response.prepare(request)
        if rest := b"".join(self.log_blocks)[start:]:
            await response.write(rest)
            await asyncio.sleep(0.05)  # let the bytes go before the connection may be cut
        if self.cut_after is not None:
            self.cut_after = None
            assert request.transport is not None
            request.transport.abort()
        if self.on_stream is not None:
            done, self.on_stream = self.on_stream, None
            done()
        return response

    # ---- events ------------------------------------------------------------------------------------------

    def _matching(self, request: web.Request, after: int) -> list[dict[str, Json]]:
        stream = f"job/{request.match_info['id']}" if "id" in request.match_info else None
        types = request.query.get("types")
        return [
            event
            for event in self.events
            if event["seq"] > after
            and (stream is None or event["stream"] == stream)
            and (types is None or event["type"] in types.split(","))
        ]

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if "id" in request.match_info and request.match_info["id"] not in self.jobs:
            return _no_job()
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request)
        # Few positions are looked at, so a page may be empty and yet not the last.
        after = int(request.query.get("after", 0))
        looked = min(after + 3, len(self.events))
        found = [event for event in self._matching(request, after) if event["seq"] <= looked]
        return _page(found, has_more=looked < len(self.events), key="seq", next_after=looked)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        cursor = request.headers.get("Last-Event-ID")
        self.cursors.append(cursor)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
        if self.reset_next:
            self.reset_next = False
            self.ends_told |= {f"job/{job_id}" for job_id in self.jobs}  # nobody waits for the rest of it
            await response.write(b'id: 1\nevent: reset\ndata: {"head": 1}\n\n')
        after = int(cursor or 0)
        sent = 0
        while True:
            for event in self._matching(request, after):
                after = event["seq"]
                await response.write(_frame(event))
                if event["type"] in {"job.succeeded", "job.failed", "job.cancelled"}:
                    self.ends_told.add(event["stream"])
                sent += 1
                if sent == self.cut_after:
                    await self._cut(request, response)
                    return response
            if self.on_stream is not None:
                done, self.on_stream = self.on_stream, None
                done()
            await asyncio.sleep(0.01)

    async def _cut(self, request: web.Request, response: web.StreamResponse) -> None:
        self.cut_after = None
        if self.beat_before_cut is not None:
            await response.write(b":\nid: %d\n\n" % self.beat_before_cut)
        assert request.transport is not None
        await asyncio.sleep(0.05)  # let the bytes go before the connection does
        request.transport.abort()


async def _body(request: web.Request) -> Json:
    """What was sent: JSON as it is, anything else as text."""
    text = await request.text()
    return json.loads(text or "null") if request.content_type == "application/json" else text or None


def _frame(event: dict[str, Json]) -> bytes:
    return f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _page(
    items: list[dict[str, Json]], *, has_more: bool, key: str, next_after: int | None = None
) -> web.Response:
    last = items[-1].get(key) if items else None
    return web.json_response(
        {
            "object": "list",
            "data": items,
            "has_more": has_more,
            "last_id": last,
            "next_after": last if next_after is None else next_after,
        }
    )


def _no_job() -> web.Response:
    return _refused(404, "not_found", "There is no such job. `finetune ls` lists the jobs.")


def _refused(status: int, code: str, message: str) -> web.Response:
    error = {"code": code, "message": message, "param": None, "type": "invalid_request_error"}
    return web.json_response({"error": error}, status=status)
