"""Webhooks over the API, to real receivers on the loopback interface, by a clock that is turned by hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import openai
import pytest
from aiohttp import web
from tests.receiver import Received, receiving

from finetuned.access.outbound import OutboundGuard
from finetuned.commands.archiving import FOLLOWED
from finetuned.domain import decisions, facts, webhook_decisions
from finetuned.secrets.store import SecretStore
from finetuned.telemetry import exposition
from finetuned.testing import House
from finetuned.webhooks import endpoint, schedule, sender
from finetuned.webhooks.endpoint import Clock
from finetuned_events import LogFullError

LOOPBACK = ("127.0.0.0/8",)


@dataclass
class Hands:
    """A clock that somebody turns: it stands still until then."""

    turned: float = 0.0
    sleeps: list[float] = field(default_factory=list)  # what is slept for, in seconds
    moved: anyio.Event = field(default_factory=anyio.Event)
    began: anyio.Event = field(default_factory=anyio.Event)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.turned, lambda: time.time() + self.turned, self.sleep)

    async def sleep(self, seconds: float) -> None:
        end = self.turned + seconds
        self.sleeps.append(seconds)
        self.began.set()
        self.began = anyio.Event()
        try:
            while self.turned < end:
                await self.moved.wait()
        finally:
            self.sleeps.remove(seconds)

    async def sleeping(self, seconds: float, count: int = 1) -> None:
        """Wait until so many sleep for so long."""
        with anyio.fail_after(60):
            while self.sleeps.count(seconds) < count:
                await self.began.wait()

    async def asleep(self, seconds: float, count: int = 1) -> None:
        """Wait until so many sleep for so long, and turn the clock to the end of it."""
        await self.sleeping(seconds, count)
        self.turned += seconds
        self.moved.set()
        self.moved = anyio.Event()


class Hooked:
    """A house, a client of it, and a clock."""

    def __init__(self, house: House, client: aiohttp.ClientSession, hands: Hands) -> None:
        self.house, self.client, self.hands = house, client, hands

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.client.request(method, f"/v1/webhooks{path}", json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def add(self, url: str, *types: str) -> Any:
        return await self.ask("POST", "", {"url": url, "types": list(types)}, status=201)

    async def shown(self, made: Any) -> Any:
        return await self.ask("GET", f"/{made['id']}")

    async def end_a_job(self, kind: str) -> str:
        """A job of a kind that succeeds; its id."""
        fact = facts.JobSubmitted(
            kind=kind, name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        )  # fmt: skip
        job_id = "job-x7k2m9qd4t"
        await self.house.log.execute(lambda world: decisions.submit(world, job_id, fact, actor="test"))
        await self.house.start_attempt()
        await self.house.report(job_id, facts.AttemptStarted(attempt=1))
        await self.house.end_attempt(job_id)
        return job_id


@asynccontextmanager
async def opened(open_house: Any, open_client: Any, **settings: Any) -> AsyncIterator[Hooked]:
    hands = Hands()
    async with (
        open_house(**{"outbound_allow": LOOPBACK, "clock": hands.clock, **settings}) as house,
        open_client(house) as client,
    ):
        yield Hooked(house, client, hands)


async def until_disabled(hooked: Hooked, made: Any) -> Any:
    await follow(hooked, "webhook.disabled")
    return await hooked.shown(made)


async def follow(hooked: Hooked, *types: str, count: int = 1) -> None:
    """Wait for so many events of some types, from the log's beginning on."""
    seen = 0
    with anyio.fail_after(60):
        async for page in hooked.house.log.follow(after=0, types=types):
            seen += len(page)
            if seen >= count:
                return


async def test_what_happens_is_sent_in_order_and_signed(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.progress", "job.submitted")
        job = await hooked.house.accept_job()
        await hooked.house.progress(job, 1, 2, 3)
        received = await receiver.wait(4)
        found = [each.verified(made["secret"]) for each in received]
        page = await hooked.client.get("/v1/events", params={"types": "job.progress,job.submitted"})
        assert found == (await page.json())["data"]
        assert len({each.id for each in received}) == 4
        assert received[0].headers["content-type"] == "application/json"


async def test_openai_s_client_reads_its_own_events(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "fine_tuning.job.succeeded")
        await hooked.end_a_job("sft")
        (received,) = await receiver.wait(1)
        client = openai.OpenAI(api_key="none", webhook_secret=made["secret"])
        event = client.webhooks.unwrap(received.body, received.headers)
        assert event.type == "fine_tuning.job.succeeded"
        assert event.data.id == "ftjob-x7k2m9qd4t"
        assert event.id == received.id


async def test_a_try_that_failed_is_repeated_with_the_same_id_and_a_new_time(
    open_house: Any, open_client: Any
) -> None:
    statuses = [500, 302, 200]

    def answer(_received: Received) -> web.Response:
        return web.Response(status=statuses.pop(0), headers={"Location": "http://169.254.169.254/"})

    async with receiving(answer=answer) as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        await hooked.hands.asleep(5.0)
        await receiver.wait(2)
        await follow(hooked, "webhook.failed", count=2)
        shown = await hooked.shown(made)
        assert (shown["last_failure"]["reason"], shown["last_failure"]["tries"]) == (
            "the receiver answered 302",
            2,
        )
        await hooked.hands.asleep(300.0)
        first, second, third = await receiver.wait(3)
        assert first.id == second.id == third.id
        assert first.body == second.body == third.body
        times = [int(each.headers["webhook-timestamp"]) for each in (first, second, third)]
        assert times[1] >= times[0] + 4
        assert times[2] >= times[1] + 299
        assert first.verified(made["secret"]) == second.verified(made["secret"])
        await hooked.hands.asleep(5.0)  # then it is recorded
        await follow(hooked, "webhook.delivered")
        assert (await hooked.shown(made))["last_failure"]["tries"] == 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_says_when_is_asked_then(
    open_house: Any, open_client: Any, status: int
) -> None:
    answers = [web.Response(status=status, headers={"Retry-After": "77"}), web.Response()]
    async with (
        receiving(answer=lambda _received: answers.pop(0)) as receiver,
        opened(open_house, open_client) as hooked,
    ):
        await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        await hooked.hands.asleep(77.0)
        await receiver.wait(2)


async def test_a_receiver_that_is_gone_is_left_alone(open_house: Any, open_client: Any) -> None:
    async with (
        receiving(answer=lambda _received: web.Response(status=410)) as receiver,
        opened(open_house, open_client) as hooked,
    ):
        made = await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        shown = await until_disabled(hooked, made)
        assert not shown["enabled"]
        assert "410" in shown["disabled_reason"]
        refused = await hooked.ask("POST", f"/{made['id']}/replay", {"after": 0}, status=409)
        assert refused["error"]["code"] == "webhook_disabled"


async def test_who_fails_for_days_is_disabled_and_goes_on_once_enabled(
    open_house: Any, open_client: Any
) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        receiver.answer = lambda _received: web.Response(status=500)
        made = await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        for delay_s in schedule.DELAYS_S:
            await hooked.hands.asleep(delay_s)
        shown = await until_disabled(hooked, made)
        assert shown["disabled_reason"].startswith("10 tries failed over days; at the last the receiver")
        assert len({each.id for each in receiver.received}) == 1
        assert len(receiver.received) == 10

        receiver.answer = lambda _received: web.Response()
        assert (await hooked.ask("POST", f"/{made['id']}/enable"))["enabled"]
        assert (await receiver.wait(11))[-1].id == receiver.received[0].id


async def test_one_that_is_enabled_is_not_moved_by_being_enabled(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        assert (await hooked.ask("POST", f"/{made['id']}/enable"))["enabled"]
        refused = await hooked.ask("POST", f"/{made['id']}/enable", {"after": 0}, status=409)
    assert refused["error"]["code"] == "webhook_enabled"
    assert "webhooks replay" in refused["error"]["message"]


async def test_a_full_disk_does_not_stop_deliveries(
    open_house: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a full disk does to jobs is what receivers are to be told of."""
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        receiver.answer = lambda _received: web.Response(status=500 if len(receiver.received) == 1 else 200)
        made = await hooked.add(receiver.url, "job.submitted")
        execute, refused = hooked.house.log.execute, 0

        async def full(decide: Any, **how: Any) -> Any:
            nonlocal refused
            if how.get("necessary") is False:
                refused += 1
                raise LogFullError("The disk is full.")
            return await execute(decide, **how)

        monkeypatch.setattr(hooked.house.log, "execute", full)
        for _ in range(endpoint.RECORD_EVERY):
            await hooked.house.accept_job()
        await hooked.hands.asleep(schedule.DELAYS_S[0])  # the first failed, and that could not be recorded
        await receiver.wait(endpoint.RECORD_EVERY + 1)
        await hooked.hands.sleeping(
            endpoint.RECORD_AFTER_S
        )  # the hundredth is to be recorded, not at once again
        assert refused == 2
        assert (await hooked.shown(made))["next_try_at"] is None
        monkeypatch.setattr(hooked.house.log, "execute", execute)
        await hooked.hands.asleep(endpoint.RECORD_AFTER_S)
        await follow(hooked, "webhook.delivered")


async def test_who_never_answers_holds_up_nobody(open_house: Any, open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(receiving(silent=True)) for _ in range(5)]
        receiver = await stack.enter_async_context(receiving())
        hooked = await stack.enter_async_context(opened(open_house, open_client))
        for each in (*silent, receiver):
            await hooked.add(each.url, "job.progress")
        job = await hooked.house.accept_job()
        await hooked.house.progress(job, *range(1, 301))
        for each in silent:
            await each.wait(1)
        steps = [each.event["data"]["current_step"] for each in await receiver.wait(300)]
        assert steps == list(range(1, 301))
        assert [len(each.received) for each in silent] == [1] * 5


async def test_who_does_not_answer_in_time_has_failed(
    open_house: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.05)
    async with receiving(silent=True) as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        await follow(hooked, "webhook.failed")
        assert "did not answer" in (await hooked.shown(made))["last_failure"]["reason"]
        assert not (await hooked.ask("POST", f"/{made['id']}/test"))["delivered"]


async def test_a_receiver_that_cuts_the_connection_has_failed(open_house: Any, open_client: Any) -> None:
    def cut(_received: Received) -> web.Response:
        raise ConnectionResetError

    async with receiving(answer=cut) as receiver, opened(open_house, open_client) as hooked:
        await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        await receiver.wait(1)
        await follow(hooked, "webhook.failed")


async def test_a_busy_feed_is_recorded_once_for_many_deliveries(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.progress")
        job = await hooked.house.accept_job()
        await hooked.house.progress(job, *range(1, 251))
        await receiver.wait(250)
        await follow(hooked, "webhook.delivered", count=2)  # one hundred each; the clock stands still
        await hooked.hands.asleep(endpoint.RECORD_AFTER_S)
        await follow(hooked, "webhook.delivered", count=3)
        shown = await hooked.shown(made)
        assert shown["position"] - shown["recorded"] <= 1  # the record itself
        assert shown["lag"] <= 1


async def test_a_restart_goes_on_where_deliveries_were(
    open_house: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "RECORD_LAST_S", 60)
    async with receiving() as receiver:
        async with opened(open_house, open_client) as hooked:
            made = await hooked.add(receiver.url, "job.submitted")
            await hooked.house.accept_job()
            await hooked.hands.sleeping(endpoint.RECORD_AFTER_S)  # delivered, and not recorded yet
        async with opened(open_house, open_client) as hooked:
            hooked.house.jobs = 1
            await hooked.house.accept_job()
            received = await receiver.wait(2)
            assert [each.event["stream"] for each in received] == ["job/job-1", "job/job-2"]
            assert received[1].verified(made["secret"])


async def test_a_restart_goes_on_counting_tries_and_waiting(open_house: Any, open_client: Any) -> None:
    async with receiving(answer=lambda _received: web.Response(status=500)) as receiver:
        async with opened(open_house, open_client) as hooked:
            await hooked.add(receiver.url, "job.submitted")
            await hooked.house.accept_job()
            await hooked.hands.asleep(5.0)
            await follow(hooked, "webhook.failed", count=2)
        async with opened(open_house, open_client) as hooked:
            (shown,) = (await hooked.ask("GET", ""))["data"]
            assert shown["last_failure"]["tries"] == 2
            while not hooked.hands.sleeps:
                await hooked.hands.began.wait()
            (left,) = hooked.hands.sleeps
            assert 0 < left <= 300.0
            await hooked.hands.asleep(left)
            await receiver.wait(3)


async def test_a_replay_sends_again_with_the_same_ids(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        for _ in range(3):
            await hooked.house.accept_job()
        first = [each.id for each in await receiver.wait(3)]
        await hooked.ask("POST", f"/{made['id']}/replay", {"after": made["position"]})
        assert [each.id for each in await receiver.wait(6)] == first * 2
        await hooked.ask("POST", f"/{made['id']}/replay", {"since": made["created_at"]})
        assert [each.id for each in await receiver.wait(9)] == first * 3
        for body in ({}, {"after": 1, "since": "2026-01-01T00:00:00Z"}, {"after": 10**6}, {"since": "then"}):
            await hooked.ask("POST", f"/{made['id']}/replay", body, status=400)


async def test_a_test_is_sent_now_and_its_answer_shown(open_house: Any, open_client: Any) -> None:
    def answer(_received: Received) -> web.Response:
        return web.Response(status=202, text="thanks " * 1000)

    async with receiving(answer=answer) as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.failed")
        tested = await hooked.ask("POST", f"/{made['id']}/test")
        (received,) = await receiver.wait(1)
        assert received.verified(made["secret"])["type"] == "webhook.test"
        assert (tested["id"], tested["status"], tested["delivered"]) == (received.id, 202, True)
        assert tested["body"].startswith("thanks")
        assert len(tested["body"]) <= 1024

        await hooked.ask("DELETE", f"/{made['id']}")
        await hooked.ask("POST", f"/{made['id']}/test", status=404)


async def test_while_a_secret_is_changed_both_verify_and_then_one(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        await hooked.house.accept_job()
        await receiver.wait(1)
        rotated = await hooked.ask("POST", f"/{made['id']}/rotate", {"keep_s": 3600})
        await hooked.ask("POST", f"/{made['id']}/test")
        (_, second) = await receiver.wait(2)
        assert second.verified(made["secret"]) == second.verified(rotated["secret"])

        rotated = await hooked.ask("POST", f"/{made['id']}/rotate", {"keep_s": 0})
        await hooked.house.accept_job()
        third = (await receiver.wait(3))[-1]
        assert third.verified(rotated["secret"])
        assert len(third.headers["webhook-signature"].split()) == 1


class KilledError(Exception):
    """Here the daemon dies."""


@pytest.mark.parametrize(
    ("boundary", "recorded"), [((webhook_decisions, "rotate"), 0), ((SecretStore, "put"), 1)]
)
async def test_a_daemon_that_dies_while_it_changes_a_secret_signs_with_the_one_that_is_known(
    open_house: Any,
    open_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    boundary: tuple[Any, str],
    recorded: int,
) -> None:
    def die(*_given: Any, **_named: Any) -> None:
        raise KilledError

    async with receiving() as receiver:
        async with opened(open_house, open_client) as hooked:
            made = await hooked.add(receiver.url, "job.submitted")
            monkeypatch.setattr(*boundary, die)
            with pytest.raises(KilledError):
                await hooked.house.commands.webhooks.rotate(made["id"], keep_s=0, actor="test")
        monkeypatch.undo()
        async with opened(open_house, open_client) as hooked:
            assert len(await hooked.house.log.read(types={"webhook.rotated"})) == recorded
            await hooked.ask("POST", f"/{made['id']}/test")
            (received,) = await receiver.wait(1)
            assert received.verified(made["secret"])
            assert len(received.headers["webhook-signature"].split()) == 1
            rotated = await hooked.ask("POST", f"/{made['id']}/rotate", {"keep_s": 0})
            await hooked.ask("POST", f"/{made['id']}/test")
            assert (await receiver.wait(2))[-1].verified(rotated["secret"])


async def test_a_secret_is_shown_once_and_is_in_no_event(
    open_house: Any, open_client: Any, state_dir: Path
) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        key = made["secret"].removeprefix("whsec_")
        rotated = await hooked.ask("POST", f"/{made['id']}/rotate")
        for path in ("", f"/{made['id']}"):
            assert key not in str(await hooked.ask("GET", path))
        events = str([each.data for each in await hooked.house.log.read()])
        assert key not in events
        assert rotated["secret"].removeprefix("whsec_") not in events
        (file,) = (state_dir / "webhooks").iterdir()
        assert file.stat().st_mode & 0o077 == 0
        assert [each.name for each in await hooked.house.commands.secrets.names()] == []
        await hooked.ask("DELETE", f"/{made['id']}")
        assert list((state_dir / "webhooks").iterdir()) == []


async def test_a_repeated_request_does_not_show_the_secret_again(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        headers = {"Idempotency-Key": "once"}
        body = {"url": receiver.url, "types": ["*"]}
        first = await hooked.client.post("/v1/webhooks", json=body, headers=headers)
        again = await hooked.client.post("/v1/webhooks", json=body, headers=headers)
        assert (first.status, again.status) == (201, 409)
        assert (await again.json())["error"]["code"] == "secret_shown_once"
        path = f"/v1/webhooks/{(await first.json())['id']}/rotate"
        twice = [await hooked.client.post(path, headers={"Idempotency-Key": "again"}) for _ in range(2)]
        assert [each.status for each in twice] == [200, 409]
        assert len((await hooked.ask("GET", ""))["data"]) == 1


@pytest.mark.parametrize(
    "content", [None, '{"not": "what was written"}', "x" * 20, '[{"secret": "whsec_?"}]']
)
async def test_a_secret_that_is_gone_is_told_and_a_new_one_mends_it(
    open_house: Any, open_client: Any, state_dir: Path, content: str | None
) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        made = await hooked.add(receiver.url, "job.submitted")
        file = anyio.Path(state_dir / "webhooks" / made["id"])
        await (file.unlink() if content is None else file.write_text(content))
        refused = await hooked.ask("POST", f"/{made['id']}/test", status=409)
        assert refused["error"]["code"] == "webhook_secret_missing"
        await hooked.house.accept_job()
        await follow(hooked, "webhook.failed")
        rotated = await hooked.ask("POST", f"/{made['id']}/rotate")
        await hooked.hands.asleep(5.0)
        (received,) = await receiver.wait(1)
        assert received.verified(rotated["secret"])


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://127.0.0.1/hook", "outbound_refused"),
        ("https://10.0.0.1/hook", "outbound_refused"),
        ("https://[::1]/hook", "outbound_refused"),
        ("https://169.254.169.254/latest", "outbound_refused"),
        ("https://localhost/hook", "outbound_refused"),
        ("http://93.184.216.34/hook", "outbound_refused"),
        ("https://user:password@example.org/", "outbound_refused"),
        ("ftp://example.org/", "outbound_refused"),
        ("https://nowhere.invalid/", "host_not_found"),
        ("https://a..b/", "host_not_found"),
        (f"https://{'a' * 64}.invalid/", "host_not_found"),
    ],
)
async def test_an_address_that_may_not_be_called_is_no_webhook(
    open_house: Any, open_client: Any, url: str, code: str
) -> None:
    guard = OutboundGuard(lookup=Names({"localhost": ["127.0.0.1"]}))
    async with opened(open_house, open_client, guard=guard) as hooked:
        refused = await hooked.ask("POST", "", {"url": url, "types": ["*"]}, status=400)
        assert (refused["error"]["code"], refused["error"]["param"]) == (code, "url")
        assert (await hooked.ask("GET", ""))["data"] == []


class Names:
    """A resolver with names of its own; each answers with the next of its addresses, and the last for ever."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names

    async def __call__(self, host: str) -> Sequence[str]:
        host.encode("idna")  # as the system's resolver has it written
        if host not in self.names:
            raise OSError(f"{host} is not known")
        answers = self.names[host]
        return [answers.pop(0) if len(answers) > 1 else answers[0]]


async def test_a_name_that_turns_to_a_private_address_is_not_called(
    open_house: Any, open_client: Any
) -> None:
    names = Names({"hooks.example.org": ["93.184.216.34", "127.0.0.1"]})
    async with (
        receiving() as receiver,
        opened(open_house, open_client, guard=OutboundGuard(lookup=names)) as hooked,
    ):
        port = receiver.url.split(":")[2].split("/")[0]
        made = await hooked.add(f"https://hooks.example.org:{port}/hook", "job.submitted")
        await hooked.house.accept_job()
        await follow(hooked, "webhook.failed")
        shown = await hooked.shown(made)
        assert "not on the public internet" in shown["last_failure"]["reason"]
        assert not (await hooked.ask("POST", f"/{made['id']}/test"))["delivered"]
        assert receiver.received == []


async def test_what_is_not_sent_yet_is_not_archived(open_house: Any, open_client: Any) -> None:
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        receiver.answer = lambda _received: web.Response(status=410)
        made = await hooked.add(receiver.url, "daemon.stopped")
        first = (await hooked.house.log.append(decisions.daemon_stopped()))[0].seq
        await until_disabled(hooked, made)
        receiver.answer = lambda _received: web.Response(status=500)
        await hooked.ask("POST", f"/{made['id']}/enable")
        await follow(hooked, "webhook.failed", count=2)
        samples = exposition.samples(await hooked.house.queries.observation.census(), event_streams=0)
        assert ("finetuned_webhooks", ("failing",), 1) in list(samples)

        async def archive() -> Any:
            body = {"upto": str(hooked.house.log.head)}
            return await (await hooked.client.post("/v1/log/archive", json=body)).json()

        for name in FOLLOWED:
            await hooked.house.log.execute(lambda _world: (), cursor=(name, hooked.house.log.head))
        archived = await archive()
        assert archived["last"] == first - 1
        refused = await archive()
        assert refused["error"]["code"] == "nothing_to_archive"
        assert made["id"] in refused["error"]["message"]
        behind = await hooked.ask("POST", f"/{made['id']}/replay", {"after": 1}, status=410)
        assert behind["error"]["code"] == "archived"


async def test_a_webhook_that_follows_webhooks_does_not_feed_itself(
    open_house: Any, open_client: Any
) -> None:
    async with receiving() as first, receiving() as second, opened(open_house, open_client) as hooked:
        for receiver in (first, second):
            await hooked.add(receiver.url, "webhook.*", "job.submitted")
        await hooked.house.accept_job()
        await first.wait(3)  # both creations and the job
        await second.wait(2)
        await hooked.hands.asleep(endpoint.RECORD_AFTER_S, count=2)
        await follow(hooked, "webhook.delivered", count=2)
        await first.wait(5)
        await second.wait(4)
        assert not hooked.hands.sleeps  # nothing is left to record: so nothing more will be
        delivered = await hooked.house.log.read(types=["webhook.delivered"])
        assert len(delivered) == 2


async def test_webhooks_are_for_administrators(open_house: Any, open_client: Any) -> None:
    async with opened(open_house, open_client) as hooked:
        _, secret = await hooked.house.commands.tokens.create(scope="operate", name=None, actor="test")
        headers = {"Authorization": f"Bearer {secret}"}
        async with aiohttp.ClientSession(hooked.house.url, headers=headers) as tcp:
            for method, path in (("GET", ""), ("POST", ""), ("GET", "/webhook-1"), ("DELETE", "/webhook-1")):
                assert (await tcp.request(method, f"/v1/webhooks{path}", json={})).status == 403


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"url": "http://127.0.0.1/", "types": []}, "types"),
        ({"url": "http://127.0.0.1/", "types": ["job.suceeded"]}, "types"),
        ({"url": "http://127.0.0.1/"}, "types"),
        ({"types": ["*"]}, "url"),
        ({"url": "http://127.0.0.1/", "types": ["*"], "secret": "mine"}, "secret"),
    ],
)
async def test_a_request_that_is_wrong_is_told_where(
    open_house: Any, open_client: Any, body: Any, param: str
) -> None:
    async with opened(open_house, open_client) as hooked:
        refused = await hooked.ask("POST", "", body, status=400)
        assert refused["error"]["param"] == param


async def test_there_is_an_end_to_how_many_are_kept(
    open_house: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_decisions, "MOST", 1)
    async with receiving() as receiver, opened(open_house, open_client) as hooked:
        await hooked.add(receiver.url, "*")
        refused = await hooked.ask("POST", "", {"url": receiver.url, "types": ["*"]}, status=409)
        assert refused["error"]["code"] == "too_many_webhooks"
