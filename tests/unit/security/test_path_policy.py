from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from finetuned.access.path_policy import (
    ANYWHERE,
    NOWHERE,
    PathNotAllowedError,
    PathPolicy,
    UrlNotAllowedError,
    is_path,
)
from finetuned.domain.errors import PermissionDeniedError


def refusal(policy: PathPolicy, value: object) -> PermissionDeniedError:
    with pytest.raises(PermissionDeniedError) as caught:
        policy.check({"dataset": value}, ["dataset"], prefix="params.")
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "~/data.jsonl",
        "~root/.ssh/id_rsa",
        "./data.jsonl",
        "../data.jsonl",
        "..",
        ".",
        "a/b/c.jsonl",
        "owner/../../etc/passwd",
        "owner/..",
        "./owner",
        "file:///etc/passwd",
        "sqlite:///mlflow.db",
        "hf://datasets/x/y",
        "C:\\data",
        "pyproject.toml",
        "daemon/finetuned",
        "x" * 5000,
        "a\0b",
        "dataset:/../etc/passwd",
        "dataset:a/../../etc/passwd",
    ],
)
def test_a_value_that_may_be_read_as_a_path_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    error = refusal(PathPolicy(), value)
    assert (error.stable_code, error.param, error.status) == ("path_not_allowed", "params.dataset", 403)
    assert "upload" in error.message
    assert "data_roots" in error.message


@pytest.mark.parametrize(
    "value", ["tatsu-lab/alpaca", "gpt2", "org/model.v2-1", "dataset:orders", "dataset:orders@3", "", None]
)
def test_hub_ids_names_and_dataset_references_are_no_paths(value: str | None, tmp_path: Path) -> None:
    PathPolicy().check({"dataset": value}, ["dataset"], prefix="params.")


def test_a_registered_name_is_no_path_even_if_it_looks_like_one() -> None:
    PathPolicy().check({"model": "a:b"}, ["model"], prefix="", known={"a:b"})
    assert is_path("a:b")


def test_administrators_name_any_path() -> None:
    ANYWHERE.check({"dataset": "/etc/passwd"}, ["dataset"], prefix="params.")
    NOWHERE.of(may_name_paths=True).check({"d": "/etc/passwd"}, ["d"], prefix="")
    with pytest.raises(PathNotAllowedError):
        NOWHERE.of(may_name_paths=False).check({"d": "/etc/passwd"}, ["d"], prefix="")


def test_only_declared_parameters_are_looked_at() -> None:
    PathPolicy().check({"prompt": "/etc/passwd"}, ["dataset"], prefix="params.")


def test_paths_in_lists_and_mappings_are_found() -> None:
    assert refusal(PathPolicy(), ["gpt2", "/etc/passwd"]).stable_code == "path_not_allowed"
    assert refusal(PathPolicy(), {"a": {"b": ["/etc/passwd"]}}).stable_code == "path_not_allowed"


def test_a_path_beneath_a_root_is_allowed_and_its_neighbour_is_not(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "rows.jsonl").touch()
    (tmp_path / "database").mkdir()
    policy = PathPolicy(roots=(root,))
    policy.check({"dataset": str(root / "rows.jsonl")}, ["dataset"], prefix="params.")
    assert refusal(policy, str(tmp_path / "database")).stable_code == "path_not_allowed"
    assert refusal(policy, f"{root}/../database").stable_code == "path_not_allowed"


def test_a_link_out_of_a_root_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/etc/passwd")
    error = refusal(PathPolicy(roots=(tmp_path,)), str(tmp_path / "rows.jsonl"))
    assert error.stable_code == "path_not_allowed"
    assert "leaves the folder" in error.message
    assert "data_roots" in error.message


def test_what_is_not_there_beneath_a_root_is_said(tmp_path: Path) -> None:
    error = refusal(PathPolicy(roots=(tmp_path,)), str(tmp_path / "nothing"))
    assert "No such file" in error.message


def test_a_url_sends_the_job_only_to_hosts_that_the_operator_listed() -> None:
    policy = PathPolicy(hosts=frozenset({"MLflow.lan."}))
    policy.check({"dataset": "http://MLFLOW.lan:5000/x"}, ["dataset"], prefix="")
    for url in (
        "http://10.0.0.1/",
        "https://mlflow.lan.evil.org/",
        "https://mlflow.lan@evil.org",
        "http://[",
    ):
        error = refusal(policy, url)
        assert isinstance(error, UrlNotAllowedError)
        assert error.stable_code == "url_not_allowed"
        assert "outbound_allow" in error.message


def test_an_address_of_a_listed_network_is_one_that_the_operator_listed() -> None:
    policy = PathPolicy(hosts=frozenset({"10.1.0.0/16", "fd00::/8", "192.168.1.7"}))
    for url in ("http://10.1.2.3:8080/hook", "https://[fd00::1]/", "http://192.168.1.7/"):
        policy.check({"url": url}, ["url"], prefix="params.")
    # A name is not resolved here: it may be another address when the worker asks.
    for url in ("http://10.2.0.1/", "https://[fe80::1]/", "http://lab.example/", "http://0x0a010203/"):
        error = refusal(policy, url)
        assert error.stable_code == "url_not_allowed"
        assert "outbound_allow" in error.message


def test_paths_in_typed_parameters_are_found() -> None:
    class Source(BaseModel):
        file: Path

    assert refusal(PathPolicy(), Path("/etc/passwd")).stable_code == "path_not_allowed"
    assert refusal(PathPolicy(), Source(file=Path("/etc/passwd"))).stable_code == "path_not_allowed"
    PathPolicy().check({"dataset": 3}, ["dataset"], prefix="")
