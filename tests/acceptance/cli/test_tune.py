"""``finetune tune-batch``: what is submitted, and what is said of it."""

from __future__ import annotations

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon

GB = 1 << 30
INTEGER = {"type": "integer"}
SCHEMA = {
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "dataset": {"type": "string"},
        "max_length": INTEGER,
        "per_device_train_batch_size": {
            "anyOf": [INTEGER, {"const": "auto", "type": "string"}],
            "default": 4,
        },
        "gradient_accumulation_steps": {**INTEGER, "default": 4},
        "tune_only": {"type": "boolean"},
    },
}
RESULT = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "batches_tried": [
        {"batch": 4, "accumulation": 4, "fits": True, "rows_per_second": 2.0, "tokens_per_second": 200.0,
         "peak_bytes": 2 * GB},
        {"batch": 8, "accumulation": 2, "fits": True, "rows_per_second": 3.5, "tokens_per_second": 350.0,
         "peak_bytes": 3 * GB},
        {"batch": 16, "accumulation": 1, "fits": False, "rows_per_second": 0.0, "tokens_per_second": 0.0,
         "peak_bytes": 9 * GB},
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def tunes(daemon: FakeDaemon) -> None:
    daemon.kinds[0] = {**daemon.kinds[0], "params_schema": SCHEMA}
    daemon.endings["sft"] = {"result": RESULT}


def submitted(daemon: FakeDaemon) -> list[dict[str, object]]:
    return [
        body["params"] for method, path, body in daemon.requests if (method, path) == ("POST", "/v1/jobs")
    ]


def test_a_short_job_is_submitted_and_what_it_tried_is_shown_with_the_command_to_use(
    daemon: FakeDaemon, finetune: Run
) -> None:
    outcome = finetune(
        "tune-batch", "sft", "--model", "tiny", "--data", "dataset:rows", "--param", "max_length=64",
        "--param", "gradient_accumulation_steps=4",
    )  # fmt: skip
    assert outcome.code == 0
    assert submitted(daemon) == [
        {
            "model": "tiny",
            "dataset": "dataset:rows",
            "max_length": 64,
            "per_device_train_batch_size": "auto",
            "gradient_accumulation_steps": 4,
            "tune_only": True,
        }
    ]
    lines = outcome.out.splitlines()
    assert any(line.split()[:2] == ["8", "2"] and line.endswith("the fastest that fits") for line in lines)
    assert any(line.split()[:2] == ["16", "1"] and line.endswith("does not fit") for line in lines)
    told = "".join(lines[-3:])  # it may be folded
    assert "finetune run sft --model tiny --data dataset:rows --param max_length=64" in outcome.out.replace(
        "\n", " "
    )
    assert told.endswith("gradient_accumulation_steps=2")


@pytest.mark.parametrize(("batch", "passes", "becomes"), [("8", "4", 8), ("2", "2", 1), ("auto", "3", 3)])
def test_the_rows_of_a_step_are_those_of_the_parameters(
    daemon: FakeDaemon, finetune: Run, batch: str, passes: str, becomes: int
) -> None:
    given = (f"per_device_train_batch_size={batch}", f"gradient_accumulation_steps={passes}")
    outcome = finetune("tune-batch", "sft", "--param", given[0], "--param", given[1], "--json")
    assert outcome.code == 0
    assert outcome.lines[-1]["result"] == RESULT
    (params,) = submitted(daemon)
    assert params["per_device_train_batch_size"] == "auto"
    assert params["gradient_accumulation_steps"] == becomes


def test_a_step_that_cannot_be_tuned_and_a_kind_that_finds_no_batch_are_refused(
    daemon: FakeDaemon, finetune: Run
) -> None:
    odd = finetune(
        "tune-batch",
        "sft",
        "--param",
        "per_device_train_batch_size=3",
        "--param",
        "gradient_accumulation_steps=1",
    )
    assert odd.code != 0
    assert "multiple of 4" in odd.err
    properties = {name: each for name, each in SCHEMA["properties"].items() if name != "tune_only"}  # type: ignore[attr-defined]
    daemon.kinds[0]["params_schema"] = {"properties": properties}
    none = finetune("tune-batch", "sft", "--model", "tiny", "--json")
    assert none.code == 2
    assert '"nothing_to_tune"' in none.err
    assert not submitted(daemon)


def test_a_job_that_fails_ends_the_command_with_its_error(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.endings["sft"] = {"state": "failed", "error": {"code": "gone", "message": "It is gone."}}
    outcome = finetune("tune-batch", "sft", "--model", "tiny")
    assert outcome.code == 1
    assert "It is gone." in outcome.out
    assert "ROWS" not in outcome.out
