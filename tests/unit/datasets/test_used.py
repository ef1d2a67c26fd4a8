"""References among a job's parameters: resolved at submission, once for all its attempts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.unit.domain.worlds import Scene

from finetuned.access.path_policy import PathNotAllowedError
from finetuned.domain import facts
from finetuned.domain.errors import FinetunedError, InvalidRequestError, Rejected
from finetuned.domain.files import Known
from finetuned.domain.registers import Dataset, DatasetVersion, File
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


def uploaded(content: Path, **changes: Any) -> Known:
    """One file, at the moment 100."""
    values: dict[str, Any] = {
        "id": "file-0123456789", "seq": 1, "filename": "rows.jsonl", "purpose": "fine-tune", "path": str(content),
        "bytes": 3, "created_at": 1, "created_by": "uid:1", "sha256": A,
    }  # fmt: skip
    return Known({"file-0123456789": File(**{**values, **changes})}, now=100)


def with_file(
    registry: Registry,
    files: Known,
    *,
    used: dict[str, Any] | None = None,
    dataset: str = "file:file-0123456789",
) -> facts.JobSubmitted:
    before = None if used is None else replace(Scene().submit(), datasets=used)
    request = JobRequest(kind="k", params={"dataset": dataset})
    return resolve(request, registry, Host(), files=files, retry_of=before)


def test_a_reference_to_a_file_is_recorded_with_its_hash_and_path(registry: Registry, tmp_path: Path) -> None:
    content = tmp_path / "data.jsonl"
    content.write_bytes(b"{}\n")
    fact = with_file(registry, uploaded(content))
    assert fact.datasets == {"dataset": {"name": "file-0123456789", "version": A, "path": str(content)}}
    assert seen == [str(content)]


def test_a_file_that_a_job_made_is_hashed_when_another_takes_it_and_a_retry_has_the_same(
    registry: Registry, tmp_path: Path
) -> None:
    content = tmp_path / "data.jsonl"
    content.write_bytes(b"{}\n")
    made = uploaded(content, sha256=None, job="job-9")
    used = with_file(registry, made).datasets
    assert used["dataset"]["version"] == hashlib.sha256(b"{}\n").hexdigest()
    assert with_file(registry, made, used=used).datasets == used
    content.write_bytes(b"[]\n")
    with pytest.raises(Rejected, match="submit a new job") as caught:
        with_file(registry, made, used=used)
    assert caught.value.stable_code == "dataset_changed"


@pytest.mark.parametrize(
    ("dataset", "changes", "code"),
    [
        ("file:file-9876543210", {}, "file_not_found"),
        ("file:/etc/passwd", {}, "path_not_allowed"),
        ("file:rows", {}, "invalid_reference"),
        ("file:file-0123456789", {"expires_at": 100}, "file_expired"),
        ("file:file-0123456789", {"bytes": 4}, "file_unreadable"),
        ("file:file-0123456789", {"path": "/nowhere/data"}, "file_unreadable"),
    ],
)
def test_a_file_that_is_not_there_is_refused_at_submission(
    registry: Registry, tmp_path: Path, dataset: str, changes: dict[str, Any], code: str
) -> None:
    content = tmp_path / "data.jsonl"
    content.write_bytes(b"{}\n")
    with pytest.raises(FinetunedError) as caught:
        with_file(registry, uploaded(content, **changes), dataset=dataset)
    assert caught.value.stable_code == code
    if isinstance(caught.value, InvalidRequestError):
        assert caught.value.param == "params.dataset"


def test_a_retry_of_a_job_whose_file_was_deleted_is_refused(registry: Registry, tmp_path: Path) -> None:
    used = {"dataset": {"name": "file-0123456789", "version": A, "path": str(tmp_path / "data")}}
    with pytest.raises(InvalidRequestError, match="finetune files") as caught:
        with_file(registry, Known({}, now=0), used=used)
    assert caught.value.stable_code == "file_not_found"
