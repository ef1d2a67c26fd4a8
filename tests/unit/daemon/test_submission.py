from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from finetuned.domain.errors import InvalidRequestError
from finetuned.submission import JobRequest, parse_request, resolve
from finetuned_sdk import Callback, Host, JobError, Registry, fake


class KeepParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    best: int = 1


class WithCallbacks(fake.FakeParams):
    callbacks: list[dict[str, Any]] = []  # noqa: RUF012 - pydantic copies it


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.job_kind(fake.FAKE)
    changed = {**{f: getattr(fake.FAKE, f) for f in fake.FAKE.__dataclass_fields__}, "name": "listening"}
    registry.job_kind(type(fake.FAKE)(**{**changed, "params": WithCallbacks}))
    registry.callback(Callback(name="keep", summary="", params=KeepParams, entry="m:f"))
    return registry


HOST = Host(models={"smollm2": Path("/models/smollm2")})


def refusal(body: object, registry: Registry) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        resolve(parse_request(body), registry, HOST)
    return caught.value


def test_a_good_request_becomes_a_submission(registry: Registry) -> None:
    fact = resolve(JobRequest(kind="fake", params={"steps": 5, "devices": 2}, priority=3), registry, HOST)
    assert (fact.kind, fact.devices, fact.priority, fact.validates) == ("fake", 2, 3, True)
    assert fact.params == {"steps": 5, "devices": 2}
    assert fact.estimate is not None
    assert fact.estimate["duration_s"] == 0.0


def test_a_registered_model_is_resolved_and_any_other_is_left_to_the_worker(registry: Registry) -> None:
    request = JobRequest(kind="fake", params={"model": "smollm2"})
    assert resolve(request, registry, HOST).models == {"model": "/models/smollm2"}
    request = JobRequest(kind="fake", params={"model": "org/other"})
    assert resolve(request, registry, HOST).models == {}


@pytest.mark.parametrize(
    ("body", "code", "param", "sentence"),
    [
        ({"kind": "fakes"}, "unknown_kind", "kind", "Did you mean 'fake'?"),
        ({"kind": "fake", "params": {"step": 3}}, "unknown_parameter", "params.step", "Did you mean 'steps'"),
        ({"kind": "fake", "params": {"steps": "many"}}, "invalid_params", "params.steps", "got 'many'"),
        (
            {"kind": "fake", "params": {"steps": -1}},
            "invalid_params",
            "params.steps",
            "greater than or equal to 0",
        ),
        ({"kind": "fake", "parms": {}}, "unknown_parameter", "parms", "Did you mean 'params'?"),
        ({"params": {}}, "missing_parameter", "kind", "give it a value"),
        ({"kind": "fake", "priority": 10**6}, "invalid_params", "priority", "1000"),
        (
            {"kind": "fake", "metadata": {"notes": "x" * 20_000}},
            "invalid_params",
            "metadata",
            "at most 16384 bytes",
        ),
        (["fake"], "invalid_params", None, "The body"),
        (
            {"kind": "fake", "params": {"refused": True}},
            "invalid_params",
            "params.refused",
            "leave out 'refused'",
        ),
        (
            {"kind": "listening", "params": {"callbacks": [{"name": "keeps"}]}},
            "unknown_callback",
            "params.callbacks.0.name",
            "Did you mean 'keep'?",
        ),
        (
            {"kind": "listening", "params": {"callbacks": [{"name": "keep", "params": {"best": "x"}}]}},
            "invalid_params",
            "params.callbacks.0.params.best",
            "got 'x'",
        ),
    ],
)
def test_each_mistake_is_named_with_its_place_and_the_remedy(
    registry: Registry, body: object, code: str, param: str | None, sentence: str
) -> None:
    error = refusal(body, registry)
    assert (error.stable_code, error.param) == (code, param)
    assert sentence in error.message


def test_several_mistakes_are_counted_and_long_values_cut(registry: Registry) -> None:
    error = refusal({"kind": "fake", "params": {"steps": "x" * 500, "step_seconds": "y"}}, registry)
    assert "(1 more problem in this request.)" in error.message
    assert len(error.message) < 300


def test_callbacks_are_resolved_to_their_entries_and_checked_params(registry: Registry) -> None:
    request = JobRequest(kind="listening", params={"callbacks": [{"name": "keep", "params": {"best": 2}}]})
    (callback,) = resolve(request, registry, HOST).callbacks
    assert callback["entry"] == "m:f"
    assert callback["params"] == {"best": 2}
    assert callback["params_model"].endswith(":KeepParams")


def test_a_callback_may_refuse_what_it_can_see_at_submission(registry: Registry) -> None:
    def refuse(_params: KeepParams, _host: Host) -> None:
        raise JobError("The held-out rows are not there; name others.", code="bad_dataset")

    registry.callback(Callback(name="picky", summary="", params=KeepParams, entry="m:f", check=refuse))
    error = refusal({"kind": "listening", "params": {"callbacks": [{"name": "picky"}]}}, registry)
    assert (error.stable_code, error.param) == ("bad_dataset", "params.callbacks.0.params")
