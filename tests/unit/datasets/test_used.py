"""References among a job's parameters: resolved at submission, once for all its attempts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.unit.domain.worlds import Scene

from finetuned.access.path_policy import PathNotAllowedError
from finetuned.domain import facts
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.registers import Dataset, DatasetVersion
from finetuned.job_request import JobRequest
from finetuned.submission import resolve
from finetuned_sdk import Callback, Host, JobKind, RefusedError, Registry

A, B = "a" * 64, "b" * 64


class RowsParams(BaseModel):
    rows: str


class Params(BaseModel):
    dataset: str
    held: str | None = None
    count: int = 0
    callbacks: list[dict[str, Any]] = []


def check(params: Params, host: Host) -> None:
    seen.append(host.dataset(params.dataset))
    if params.count:
        raise RefusedError("No.", param="count")


seen: list[str] = []


@pytest.fixture
def registry() -> Registry:
    seen.clear()
    registry = Registry()
    registry.job_kind(
        JobKind(
            name="k",
            summary="",
            params=Params,
            entry="m:f",
            check=check,
            dataset_params=("dataset", "held", "count"),
        )
    )
    registry.callback(
        Callback(
            name="c",
            summary="",
            params=RowsParams,
            entry="m:f",
            check=lambda params, host: seen.append(host.dataset(params.rows)),
            dataset_params=("rows",),
        )
    )
    return registry


def datasets(*versions: str) -> dict[str, Dataset]:
    made = tuple(
        DatasetVersion(
            version=each, path=f"/store/{each[0]}", bytes=1, format="jsonl", source="upload", rows=1, created_at=1,
            created_by="uid:1",
        )
        for each in versions
    )  # fmt: skip
    return {"colours": Dataset(name="colours", versions=made)}


def submitted(
    registry: Registry, known: dict[str, Dataset], *, used: dict[str, Any] | None = None, **params: Any
) -> facts.JobSubmitted:
    before = None if used is None else replace(Scene().submit(), datasets=used)
    return resolve(JobRequest(kind="k", params=params), registry, Host(), datasets=known, retry_of=before)


def test_references_are_recorded_with_version_and_path_and_the_rest_is_left_alone(registry: Registry) -> None:
    fact = submitted(registry, datasets(A, B), dataset="dataset:colours", held=f"dataset:colours@{A[:8]}")
    assert fact.datasets == {
        "dataset": {"name": "colours", "version": B, "path": "/store/b"},
        "held": {"name": "colours", "version": A, "path": "/store/a"},
    }
    assert fact.params["dataset"] == "dataset:colours"  # as the user gave it
    assert seen == ["/store/b"]  # what a declaration's check looks at
    assert submitted(registry, datasets(A), dataset="owner/rows").datasets == {}


def test_a_callback_is_given_the_file(registry: Registry) -> None:
    fact = submitted(
        registry,
        datasets(A),
        dataset="owner/rows",
        callbacks=[
            {"name": "c", "params": {"rows": "owner/x"}},
            {"name": "c", "params": {"rows": "dataset:colours"}},
        ],
    )
    assert [each["params"] for each in fact.callbacks] == [{"rows": "owner/x"}, {"rows": "/store/a"}]
    assert list(fact.datasets) == ["callbacks.1.rows"]
    assert "/store/a" in seen


@pytest.mark.parametrize(
    ("params", "param", "code", "remedy"),
    [
        ({"dataset": "dataset:colour"}, "params.dataset", "dataset_not_found", "Did you mean 'colours'?"),
        (
            {"dataset": "dataset:colours@00000000"},
            "params.dataset",
            "dataset_not_found",
            "it has aaaaaaaaaaaa",
        ),
        ({"dataset": "dataset:colours@1"}, "params.dataset", "invalid_version", "at least 8 digits"),
        ({"dataset": "dataset:.hidden"}, "params.dataset", "invalid_reference", "dataset:NAME"),
        (
            {"dataset": "owner/x", "callbacks": [{"name": "c", "params": {"rows": "dataset:x"}}]},
            "params.callbacks.0.params.rows",
            "dataset_not_found",
            "finetune datasets",
        ),
    ],
)
def test_a_reference_to_nothing_is_refused_at_submission_with_its_place(
    registry: Registry, params: dict[str, Any], param: str, code: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        submitted(registry, datasets(A), **params)
    assert (caught.value.param, caught.value.stable_code) == (param, code)
    assert remedy in caught.value.message


def test_a_retry_has_the_version_that_the_job_had(registry: Registry) -> None:
    used = {"dataset": {"name": "colours", "version": A, "path": "/store/a"}}
    fact = submitted(registry, datasets(A, B), used=used, dataset="dataset:colours")
    assert fact.datasets["dataset"]["version"] == A
    with pytest.raises(InvalidRequestError, match="submit a new job for the present one") as caught:
        submitted(registry, datasets(B), used=used, dataset="dataset:colours")
    assert caught.value.stable_code == "dataset_not_found"


def test_a_path_in_a_parameter_for_datasets_is_a_privilege_too(registry: Registry, tmp_path: Path) -> None:
    for params in (
        {"dataset": str(tmp_path)},
        {"dataset": "owner/x", "callbacks": [{"name": "c", "params": {"rows": str(tmp_path)}}]},
    ):
        with pytest.raises(PathNotAllowedError):
            submitted(registry, {}, **params)
    assert seen == []
