"""What is sent of an event: itself, as the API shows it, and what OpenAI calls the end of a job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from tests.unit.domain.worlds import Scene

from finetuned import views
from finetuned.domain import facts, subscriptions
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.job import Job
from finetuned.queries.door import GUARDED
from finetuned.webhooks import payload
from finetuned_events import Event

AT = 1_719_168_000_123_456


def ended(fact: str, **changes: Any) -> Event:
    made = Event(
        seq=7, stream="job/job-x7k2m9qd4t", version=5, type=fact, schema=1, at=AT, actor="daemon", cause=None,
        data={},
    )  # fmt: skip
    return replace(made, **changes)


def job(kind: str, **changes: Any) -> Job:
    return replace(Scene().submit("job-x7k2m9qd4t"), kind=kind, **changes)


def sent(event: Event, types: list[str], of: Job | None = None) -> list[Any]:
    wanted = subscriptions.matched(types)
    return [orjson.loads(each.body) for each in payload.messages(event, wanted, of)]


def test_an_event_is_sent_as_the_api_shows_it() -> None:
    event = ended("job.succeeded")
    assert sent(event, ["job.*"], job("sft")) == [views.event(event)]


@pytest.mark.parametrize(
    ("kind", "fact", "reason", "name", "of"),
    [
        ("sft", "job.succeeded", None, "fine_tuning.job.succeeded", "ftjob-x7k2m9qd4t"),
        ("dpo", "job.failed", None, "fine_tuning.job.failed", "ftjob-x7k2m9qd4t"),
        ("opd", "job.cancelled", None, "fine_tuning.job.cancelled", "ftjob-x7k2m9qd4t"),
        ("batch", "job.succeeded", None, "batch.completed", "batch_x7k2m9qd4t"),
        ("batch", "job.failed", None, "batch.failed", "batch_x7k2m9qd4t"),
        ("batch", "job.cancelled", "enough of it", "batch.cancelled", "batch_x7k2m9qd4t"),
        ("batch", "job.cancelled", "batch_expired: after 24 h", "batch.expired", "batch_x7k2m9qd4t"),
    ],
)
def test_the_end_of_a_job_is_sent_in_openai_s_words(
    kind: str, fact: str, reason: str | None, name: str, of: str
) -> None:
    (body,) = sent(ended(fact), list(subscriptions.WIRE_TYPES), job(kind, cancel_reason=reason))
    assert body.pop("id").startswith("evt_")
    assert body == {"object": "event", "type": name, "created_at": 1_719_168_000, "data": {"id": of}}


def test_a_job_of_another_kind_is_none_of_openai_s() -> None:
    assert sent(ended("job.succeeded"), ["fine_tuning.job.*", "batch.*"], job("tune")) == []


def test_who_wants_both_gets_both_with_ids_of_their_own() -> None:
    wanted = subscriptions.matched(["job.succeeded", "fine_tuning.job.succeeded"])
    first, second = payload.messages(ended("job.succeeded"), wanted, job("sft"))
    assert (first.type, second.type) == ("job.succeeded", "fine_tuning.job.succeeded")
    assert first.id != second.id


@pytest.mark.parametrize("other", [{"version": 6}, {"at": AT + 1}, {"stream": "job/job-other"}])
def test_an_event_has_one_id_for_ever_and_no_other_has_it(other: dict[str, Any]) -> None:
    wanted = subscriptions.matched(["job.*"])

    def id_of(event: Event) -> str:
        return next(payload.messages(event, wanted, None)).id

    assert id_of(ended("job.succeeded")) == id_of(ended("job.succeeded", seq=8000))
    assert id_of(ended("job.succeeded")) != id_of(ended("job.succeeded", **other))


def test_everything_is_what_every_token_may_see() -> None:
    found = subscriptions.matched(["*"])
    assert {"job.submitted", "daemon.started", "dataset.registered"} < found
    assert not [each for each in found if each.startswith(("token.", "secret.", "request.", "webhook."))]
    assert not found & set(subscriptions.WIRE_TYPES)


def test_what_is_for_administrators_is_sent_where_it_is_named() -> None:
    assert "token.revoked" in subscriptions.matched(["token.*"])
    assert "webhook.disabled" in subscriptions.matched(["webhook.disabled"])
    assert tuple(each.replace(".", "/") for each in subscriptions.GUARDED) == GUARDED


def test_openai_s_types_are_looked_for_among_the_ends_of_jobs() -> None:
    wanted = subscriptions.matched(["batch.*", "model.registered"])
    assert subscriptions.native(wanted) == {
        facts.JobSucceeded.type,
        facts.JobFailed.type,
        facts.JobCancelled.type,
        "model.registered",
    }


@pytest.mark.parametrize("types", [[], ["job.suceeded"], ["jobs.*"], ["*.failed"], ["job.succeeded", ""]])
def test_types_that_nothing_matches_are_refused(types: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        subscriptions.check(types)
    assert refused.value.param == "types"


def test_a_type_that_is_nearly_one_is_told_so() -> None:
    with pytest.raises(InvalidRequestError, match=r"job\.succeeded"):
        subscriptions.check(["job.suceeded"])
    assert subscriptions.check(["job.*", "job.failed", "job.*"]) == ["job.*", "job.failed"]
