"""Secrets and paths through the doors: a served daemon, the client and the command line, by scope."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from pydantic import BaseModel

from finetuned.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.testing import House, serve_house
from finetuned_sdk import JobKind

Answer = tuple[int, Any]


class Reading(BaseModel):
    file: str


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A directory whose name is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="ft-") as name:
        yield Path(name)


@asynccontextmanager
async def opened(state_dir: Path, **settings: Any) -> AsyncIterator[House]:
    async with serve_house(state_dir, **settings) as house:
        house.commands.registry.job_kind(
            JobKind(name="reading", summary="", params=Reading, entry="none:none", path_params=("file",))
        )
        yield house


class Caller:
    """Requests over TCP with a token of one scope."""

    def __init__(self, house: House, secret: str) -> None:
        self.house = house
        self.secret = secret

    async def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {"Authorization": f"Bearer {self.secret}"}
        async with (
            aiohttp.ClientSession(self.house.url, headers=headers) as session,
            session.request(method, path, json=body) as response,
        ):
            return response.status, await response.json()


async def caller(house: House, scope: str) -> Caller:
    _token, secret = await house.commands.tokens.create(scope=scope, name=None, actor="test")
    return Caller(house, secret)


async def test_an_administrator_stores_names_and_removes_secrets(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        admin = await caller(house, "admin")
        stored = {"name": "hf", "object": "secret", "writable": True}
        assert await admin("PUT", "/v1/secrets/hf", {"value": "hf_abcdefgh"}) == (200, stored)
        status, listed = await admin("GET", "/v1/secrets")
        assert (status, listed["data"]) == (200, [stored])
        assert "abcdefgh" not in json.dumps(listed)
        assert house.commands.secrets.store.read("hf") == "hf_abcdefgh"
        assert (await admin("DELETE", "/v1/secrets/hf"))[0] == 200
        status, refused = await admin("DELETE", "/v1/secrets/hf")
        assert (status, refused["error"]["code"]) == (404, "secret_not_found")


async def test_the_log_learns_the_name_of_a_secret_and_who_set_it(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        admin = await caller(house, "admin")
        await admin("PUT", "/v1/secrets/hf", {"value": "hf_abcdefgh"})
        await admin("DELETE", "/v1/secrets/hf")
        page = (await admin("GET", "/v1/events?types=secret.set,secret.deleted"))[1]
        assert [(event["type"], event["data"]) for event in page["data"]] == [
            ("secret.set", {"name": "hf"}),
            ("secret.deleted", {"name": "hf"}),
        ]
        assert all(event["actor"].startswith("token:tok-") for event in page["data"])


@pytest.mark.parametrize("scope", ["read", "operate"])
async def test_nobody_else_may_even_list_them(state_dir: Path, scope: str) -> None:
    async with opened(state_dir) as house:
        other = await caller(house, scope)
        for method, path in (("GET", ""), ("PUT", "/hf"), ("DELETE", "/hf")):
            status, refused = await other(method, f"/v1/secrets{path}", {"value": "hf_abcdefgh"})
            assert (status, refused["error"]["code"]) == (403, "permission_denied")
        assert not house.commands.secrets.store.directory.exists()


@pytest.mark.parametrize(
    "body",
    [
        {"value": "tiny"},
        {"value": ["hf_in_a_list"]},
        {"value": "hf_abcdefgh", "extra": "hf_in_extra"},
        {"valeu": "hf_misspelt"},
    ],
)
async def test_a_value_that_is_refused_is_not_quoted(state_dir: Path, body: dict[str, Any]) -> None:
    async with opened(state_dir) as house:
        admin = await caller(house, "admin")
        status, refused = await admin("PUT", "/v1/secrets/hf", body)
        assert status == 400
        for value in ("tiny", "hf_in_a_list", "hf_abcdefgh", "hf_in_extra", "hf_misspelt"):
            assert value not in json.dumps(refused)


async def test_a_job_names_a_secret_that_is_there_and_shows_the_reference(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        admin, operator = await caller(house, "admin"), await caller(house, "operate")
        request = {"kind": "fake", "secrets": {"HF_TOKEN": "secret:hf"}}
        status, refused = await operator("POST", "/v1/jobs", request)
        assert (status, refused["error"]["code"]) == (404, "secret_not_found")
        await admin("PUT", "/v1/secrets/hf", {"value": "hf_abcdefgh"})
        status, job = await operator("POST", "/v1/jobs", request)
        assert (status, job["secrets"]) == (201, {"HF_TOKEN": "secret:hf"})
        await operator("POST", f"/v1/jobs/{job['id']}/cancel")
        assert (await operator("POST", f"/v1/jobs/{job['id']}/retry"))[1]["secrets"] == job["secrets"]


async def test_a_job_of_an_operator_names_no_path_and_that_of_an_administrator_does(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        admin, operator = await caller(house, "admin"), await caller(house, "operate")
        request = {"kind": "reading", "params": {"file": "/etc/hostname"}}
        status, refused = await operator("POST", "/v1/jobs", request)
        assert (status, refused["error"]["code"]) == (403, "path_not_allowed")
        status, job = await admin("POST", "/v1/jobs", request)
        assert status == 201
        await admin("POST", f"/v1/jobs/{job['id']}/cancel")
        status, refused = await operator("POST", f"/v1/jobs/{job['id']}/retry")
        assert (status, refused["error"]["code"]) == (403, "path_not_allowed")
        assert (await admin("POST", f"/v1/jobs/{job['id']}/retry"))[0] == 201


async def test_a_template_of_an_operator_names_no_path_that_an_administrator_would_lend_it(
    state_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "rows.jsonl").write_text("{}\n")
    async with opened(state_dir, data_roots=(root,)) as house:
        admin, operator = await caller(house, "admin"), await caller(house, "operate")
        theirs = {"kind": "reading", "params": {"file": "/etc/hostname"}}
        for method, path, body in (
            ("POST", "/v1/templates", {"name": "nightly", "request": theirs}),
            ("PUT", "/v1/templates/nightly", {"request": theirs}),
        ):
            status, refused = await operator(method, path, body)
            assert (status, refused["error"]["code"]) == (403, "path_not_allowed")
            assert refused["error"]["param"] == "request.params.file"
            assert "data_roots" in refused["error"]["message"]
        for params in ({}, {"file": str(root / "rows.jsonl")}):
            body = {"request": {"kind": "reading", "params": params}}
            assert (await operator("PUT", "/v1/templates/nightly", body))[0] == 200
        # What an administrator keeps is still checked for who makes a job of it.
        assert (await admin("PUT", "/v1/templates/nightly", {"request": theirs}))[0] == 200
        status, refused = await operator("POST", "/v1/jobs", {"template": "nightly"})
        assert (status, refused["error"]["code"]) == (403, "path_not_allowed")
        assert (await admin("POST", "/v1/jobs", {"template": "nightly"}))[0] == 201


async def test_the_client_sets_lists_and_removes_secrets(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        _token, secret = await house.commands.tokens.create(scope="admin", name=None, actor="test")
        async with Client(Endpoint(url=house.url, token=secret)) as client:
            assert (await client.set_secret("hf", "hf_abcdefgh"))["name"] == "hf"
            assert [each["name"] for each in await client.secrets()] == ["hf"]
            await client.delete_secret("hf")
            assert await client.secrets() == []


async def test_a_file_of_a_root_that_becomes_a_link_out_of_it_is_not_shown(
    state_dir: Path, tmp_path: Path
) -> None:
    root, outside = tmp_path / "data", tmp_path / "payroll.jsonl"
    root.mkdir()
    outside.write_text('{"text": "of nobody"}\n')
    rows = root / "rows.jsonl"
    rows.write_text('{"text": "of theirs"}\n')
    assert rows.stat().st_size == outside.stat().st_size
    async with opened(state_dir, data_roots=(root,)) as house:
        operator = await caller(house, "operate")
        job = {"kind": "reading", "params": {"file": str(rows)}}
        assert (await operator("POST", "/v1/jobs", job))[0] == 201
        body = {"name": "rows", "path": str(rows)}
        assert (await operator("POST", "/v1/datasets/register", body))[0] == 201
        assert (await operator("GET", "/v1/datasets/rows/preview"))[0] == 200
        rows.unlink()
        rows.symlink_to(outside)
        for method, path, again in (
            ("GET", "/v1/datasets/rows/preview", None),
            ("POST", "/v1/datasets/register", body | {"name": "again"}),
            ("POST", "/v1/jobs", job),
        ):
            status, refused = await operator(method, path, again)
            assert status in {403, 409}, (path, refused)
            assert "nobody" not in json.dumps(refused)


@pytest.mark.parametrize("scope", ["read", "operate"])
async def test_events_of_tokens_secrets_and_requests_are_for_administrators(
    state_dir: Path, scope: str
) -> None:
    async with opened(state_dir) as house:
        admin, other = await caller(house, "admin"), await caller(house, scope)
        await admin("PUT", "/v1/secrets/hf", {"value": "hf_abcdefgh"})
        async with aiohttp.ClientSession(
            house.url, headers={"Authorization": f"Bearer {admin.secret}"}
        ) as session:
            for _ in range(2):
                job = await session.post("/v1/jobs", json={"kind": "fake"}, headers={"Idempotency-Key": "k"})
                assert job.status == 201
        all_of_them = (await admin("GET", "/v1/events?limit=1000"))[1]
        kinds = {event["stream"].partition("/")[0] for event in all_of_them["data"]}
        assert {"token", "secret", "request", "job"} <= kinds
        allowed = [
            event
            for event in all_of_them["data"]
            if event["stream"].partition("/")[0] not in {"token", "secret", "request"}
        ]
        shown = (await other("GET", "/v1/events?limit=1000"))[1]
        assert shown["data"] == allowed
        assert shown["next_after"] == all_of_them["next_after"]  # whoever pages goes on behind them
        for named in ("token.created", "secret.set", "request.accepted"):
            page = (await other("GET", f"/v1/events?types={named}"))[1]
            assert (page["data"], page["has_more"]) == ([], False)
        # Pushed: what was before the stream began, and what comes while it is open.
        async with (
            aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {other.secret}"}) as session,
            session.get("/v1/events?stream=true&after=0") as response,
        ):
            await admin("PUT", "/v1/secrets/other", {"value": "hf_abcdefgh"})
            await admin("POST", "/v1/jobs", {"kind": "fake", "name": "the last"})
            pushed = b""
            with anyio.fail_after(20):
                while b"the last" not in pushed:
                    pushed += await response.content.readany()
        for word in (b"event: token", b"event: secret", b"event: request", b"sha256"):
            assert word not in pushed


async def test_a_reason_or_a_tokens_name_may_not_be_a_secret_either(state_dir: Path) -> None:
    async with opened(state_dir) as house:
        admin = await caller(house, "admin")
        token = "hf_" + "a1B2" * 8
        job = (await admin("POST", "/v1/jobs", {"kind": "fake"}))[1]["id"]
        for path, body in (
            (f"/v1/jobs/{job}/cancel", {"reason": f"wrong {token}"}),
            ("/v1/tokens", {"scope": "read", "name": token}),
        ):
            status, refused = await admin("POST", path, body)
            assert (status, refused["error"]["code"]) == (400, "secret_in_params")
            assert token not in json.dumps(refused)
