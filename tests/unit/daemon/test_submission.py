from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr
from tests.unit.domain.worlds import submission

from finetuned.access.path_policy import ANYWHERE, PathPolicy
from finetuned.domain.errors import FinetunedError, InvalidRequestError
from finetuned.domain.job import submitted
from finetuned.job_request import JobRequest, parse_request
from finetuned.secrets.store import SecretStore
from finetuned.submission import prepare, recorded, resolve
from finetuned_batch.plugin import BATCH
from finetuned_sdk import Callback, Host, JobError, JobKind, Registry, fake


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


TOKEN = "hf_" + "a1B2" * 8
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


# ---- paths and secrets -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    store = SecretStore(tmp_path / "secrets")
    store.put("hf", "hf_abcdefgh")
    return store


def refused(body: dict[str, Any], registry: Registry, **terms: Any) -> FinetunedError:
    with pytest.raises(FinetunedError) as caught:
        resolve(parse_request({"kind": "fake", **body}), registry, HOST, **terms)
    return caught.value


@pytest.mark.parametrize("param", ["dataset", "model"])
def test_a_path_in_a_declared_parameter_needs_the_right_to_name_paths(registry: Registry, param: str) -> None:
    error = refused({"params": {param: "/etc/passwd"}}, registry)
    assert (error.stable_code, error.param, error.status) == ("path_not_allowed", f"params.{param}", 403)
    request = JobRequest(kind="fake", params={param: "/etc/passwd"})
    assert resolve(request, registry, HOST, paths=ANYWHERE).params == {param: "/etc/passwd"}


def test_a_path_beneath_a_root_may_be_named_by_everybody(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    request = JobRequest(kind="fake", params={"dataset": str(tmp_path / "rows.jsonl")})
    assert resolve(request, registry, HOST, paths=PathPolicy(roots=(tmp_path,)))


def test_a_registered_models_name_is_no_path_where_a_dataset_is_wanted(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").touch()
    assert refused({"params": {"dataset": "smollm2"}}, registry).stable_code == "path_not_allowed"
    assert resolve(JobRequest(kind="fake", params={"model": "smollm2"}), registry, HOST)


def test_whether_a_file_is_there_is_not_told_to_who_may_not_name_it(registry: Registry) -> None:
    there = refused({"params": {"dataset": "/etc/passwd"}}, registry)
    nowhere = refused({"params": {"dataset": "/etc/nothing-here"}}, registry)
    assert there.message == nowhere.message


def test_a_callbacks_path_is_checked_before_the_callback_looks(registry: Registry) -> None:
    class WithFile(BaseModel):
        rows: str

    def look(_params: WithFile, _host: Host) -> None:
        raise AssertionError("it was opened")

    registry.callback(
        Callback(name="reading", summary="", params=WithFile, entry="m:f", check=look, path_params=("rows",))
    )
    body = {"kind": "listening", "params": {"callbacks": [{"name": "reading", "params": {"rows": "/etc/x"}}]}}
    error = refused(body, registry)
    assert (error.stable_code, error.param) == ("path_not_allowed", "params.callbacks.0.params.rows")


@pytest.mark.parametrize(
    "body",
    [
        {"params": {"hf_token": TOKEN}},
        {"params": {"model": TOKEN}},
        {"params": {"steps": TOKEN}},
        {"params": {"callbacks": [{"name": "keep", "params": {"best": TOKEN}}]}},
        {"metadata": {"note": TOKEN}},
        {"name": TOKEN},
        {"secrets": {"HF_TOKEN": TOKEN}},
        {"kind": "fakes", "params": {"x": TOKEN}},
    ],
)
def test_a_secret_is_refused_wherever_it_stands_and_never_quoted(
    registry: Registry, body: dict[str, Any]
) -> None:
    error = refused(body, registry)
    assert error.stable_code == "secret_in_params"
    assert TOKEN not in error.message
    assert "finetune secrets set" in error.message


def test_a_malformed_secrets_field_is_not_quoted_either(registry: Registry) -> None:
    error = refused({"secrets": {"HF_TOKEN": [TOKEN]}}, registry)
    assert error.stable_code == "invalid_params"
    assert TOKEN not in error.message


def test_references_are_recorded_and_values_are_not(registry: Registry, store: SecretStore) -> None:
    request = JobRequest(
        kind="fake", params={"result": {"k": "secret:hf"}}, secrets={"HF_TOKEN": "secret:hf"}
    )
    fact = resolve(request, registry, HOST, secrets=store)
    assert fact.secrets == {"HF_TOKEN": "secret:hf"}
    request = JobRequest(kind="fake", params={"result": {"key": "secret:hf"}})
    assert resolve(request, registry, HOST, secrets=store).secrets == {"secret:hf": "secret:hf"}
    assert "hf_abcdefgh" not in repr(fact)


def test_a_secret_that_is_not_stored_is_refused_with_the_remedy(
    registry: Registry, store: SecretStore
) -> None:
    for terms in ({"secrets": store}, {}):
        error = refused({"secrets": {"WANDB_API_KEY": "secret:wandb"}}, registry, **terms)
        assert (error.stable_code, error.param, error.status) == (
            "secret_not_found",
            "secrets.WANDB_API_KEY",
            404,
        )
        assert "finetune secrets set wandb" in error.message


def test_a_secret_whose_file_others_can_read_is_refused_with_the_remedy(
    registry: Registry, store: SecretStore
) -> None:
    (store.directory / "hf").chmod(0o644)
    error = refused({"secrets": {"HF_TOKEN": "secret:hf"}}, registry, secrets=store)
    assert (error.stable_code, error.param, error.status) == ("secret_unsafe", "secrets.HF_TOKEN", 503)
    assert error.message == f"{store.directory / 'hf'} can be read by others; chmod 600 it."


@pytest.mark.parametrize("reduces", [True, False])
def test_a_retry_begins_with_the_smaller_batch_that_the_job_before_had_come_to(
    registry: Registry, *, reduces: bool
) -> None:
    before = submitted("job-1", submission(), seq=1, at=1, actor="a")
    before = replace(before, overrides={"batch": 2})
    request = JobRequest(kind="fake", params={"steps": 5}, reduces_batch=reduces)
    fact = resolve(request, registry, HOST, retry_of=before)
    assert fact.overrides == ({"batch": 2} if reduces else {})
    assert fact.params == {"steps": 5}
    assert submitted("job-2", fact, seq=2, at=2, actor="a").overrides == fact.overrides


def test_what_is_recorded_has_the_types_that_it_was_taken_for(registry: Registry) -> None:
    params = {"input": "/in", "model": "m", "completion_window": "3600", "max_requests": 5.0}
    found = prepare(
        JobRequest(kind="batch", params=params), _without_engine(registry), HOST, paths=ANYWHERE
    ).fact.params
    assert found == {**params, "completion_window": 3600}
    assert [type(value) for value in found.values()] == [str, str, int, int]


def test_what_is_not_read_as_it_is_written_is_recorded_as_it_was_given() -> None:
    class Hidden(BaseModel):
        password: SecretStr
        times: int = 1

    kind = JobKind(name="hidden", summary="", params=Hidden, entry="m:f")
    given = {"password": "p", "times": "2"}
    assert recorded(kind, Hidden.model_validate(given), given) == given


def _without_engine(registry: Registry) -> Registry:
    registry.job_kinds["batch"] = replace(BATCH, engine=None)
    return registry
