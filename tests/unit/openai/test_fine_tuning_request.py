"""What an OpenAI client asks for, as the job that it is."""

from __future__ import annotations

from typing import Any

import pytest

from finetuned.api.body import parse
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.registers import Alias, File, Model
from finetuned.job_request import JobRequest
from finetuned.openai import fine_tuning, fine_tuning_places
from finetuned.openai.fine_tuning_request import FineTuningRequest
from finetuned.openai.hyperparameters import METHODS

JOB = "job-abcde12345"
LEAST = {"model": "smollm2", "training_file": "file-0123456789"}


def model(name: str, kind: str, *, base: str | None, job: str | None = None) -> Model:
    return Model(name=name, path=f"/m/{name}", kind=kind, base=base, job=job, lineage={}, created_at=0)


MODELS = {
    each.name: each
    for each in (
        model("smollm2", "imported", base=None),
        model("bot-zzzzz99999", "adapter", base="org/smollm2", job="job-zzzzz99999"),
        model("whole", "full", base="smollm2", job="job-yyyyy88888"),
    )
}
ALIASES = {
    "bot@production": Alias(
        alias="bot@production", model="bot-zzzzz99999", history=(), set_at=0, set_by="somebody"
    )
}


def asked(**body: Any) -> JobRequest:
    request = parse(FineTuningRequest, {**LEAST, **body})
    return fine_tuning.job_request(request, job_id=JOB, models=MODELS, aliases=ALIASES)


def refused(**body: Any) -> tuple[str | None, str, str]:
    """Parameter, code and message of a refusal."""
    with pytest.raises((InvalidRequestError, NotFoundError)) as error:
        asked(**body)
    return error.value.param, error.value.stable_code, error.value.message


def test_a_model_and_a_file_are_a_job_with_all_that_auto_means() -> None:
    job = asked()
    assert job.kind == "sft"
    assert job.params == {
        "model": "smollm2",
        "dataset": "file:file-0123456789",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "learning_rate": 2e-4,
    }
    assert (job.metadata, job.priority, job.name) == ({}, 0, None)


def test_everything_that_can_be_said_arrives() -> None:
    given = {"n_epochs": 2, "batch_size": 6, "learning_rate_multiplier": 0.5, "beta": 0.3}
    job = asked(
        validation_file="file-abcdefghjk",
        suffix="support",
        seed=7,
        method={"type": "dpo", "dpo": {"hyperparameters": given}},
        metadata={"team": "a"},
        x_finetuned={"params": {"max_length": 256, "method": "full"}, "priority": 5},
    )
    assert job.kind == "dpo"
    assert job.params == {
        "model": "smollm2",
        "dataset": "file:file-0123456789",
        "eval_dataset": "file:file-abcdefghjk",
        "output_name": "support-abcde12345",
        "seed": 7,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5e-7,
        "beta": 0.3,
        "max_length": 256,
        "method": "full",
    }
    assert (job.metadata, job.priority, job.name) == ({"team": "a"}, 5, "support")


@pytest.mark.parametrize("value", ["auto", None])
def test_auto_and_nothing_are_the_same(value: object) -> None:
    names = ("n_epochs", "batch_size", "learning_rate_multiplier")
    method = {"type": "supervised", "supervised": {"hyperparameters": dict.fromkeys(names, value)}}
    assert asked(method=method) == asked()
    assert asked(hyperparameters=dict.fromkeys(names, value)) == asked()


def test_hyperparameters_where_older_clients_put_them_count() -> None:
    assert asked(hyperparameters={"n_epochs": 5}).params["num_train_epochs"] == 5
    assert refused(hyperparameters={"n_epochs": 5}, method={"type": "supervised"})[0] == "hyperparameters"


@pytest.mark.parametrize("name", ["bot-zzzzz99999", "bot@production", "ft:smollm2:finetuned:bot:zzzzz99999"])
def test_training_goes_on_from_an_adapter_by_any_of_its_names(name: str) -> None:
    params = asked(model=name).params
    assert (params["model"], params["adapter"]) == ("org/smollm2", "bot-zzzzz99999")


def test_whole_models_hub_ids_and_directories_are_begun_with_as_they_are() -> None:
    for given, begins in {
        "ft:smollm2:finetuned:whole:yyyyy88888": "whole",
        "org/model": "org/model",
        "/models/x": "/models/x",
    }.items():
        params = asked(model=given).params
        assert params["model"] == begins
        assert "adapter" not in params


def test_a_distillation_names_its_teacher_as_it_names_the_model() -> None:
    def taught(teacher: str) -> dict[str, Any]:
        job = asked(method={"type": "distillation", "distillation": {"teacher": teacher}})
        assert job.kind == "opd"
        return {name: value for name, value in job.params.items() if name.startswith("teacher")}

    assert taught("whole") == {"teacher": "whole"}
    assert taught("bot@production") == {"teacher": "org/smollm2", "teacher_adapter": "bot-zzzzz99999"}
    assert taught("http://127.0.0.1:8000/v1") == {"teacher_endpoint": "http://127.0.0.1:8000/v1"}
    own = asked(method={"type": "distillation"}, x_finetuned={"params": {"self_distillation": True}})
    assert own.params["self_distillation"] is True


def test_integrations_become_trackers_with_their_project() -> None:
    params = asked(
        integrations=[
            {"type": "wandb", "wandb": {"project": "p", "name": "n", "entity": "us", "tags": ["a", "b"]}},
            {"type": "tensorboard"},
            {"type": "swanlab"},
        ],
        x_finetuned={"params": {"callbacks": [{"name": "checkpoint", "params": {"last": 3}}]}},
    ).params
    assert params["callbacks"] == [
        {
            "name": "tracker",
            "params": {
                "report_to": "wandb",
                "project": "p",
                "run_name": "n",
                "entity": "us",
                "tags": ["a", "b"],
            },
        },
        {"name": "tracker", "params": {"report_to": "tensorboard"}},
        {"name": "checkpoint", "params": {"last": 3}},
    ]
    assert params["report_to"] == ["swanlab"]


HYPER = "method.supervised.hyperparameters"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n_epochs": 3}, "n_epochs"),
        ({"model": ""}, "model"),
        ({"suffix": "a" * 65}, "suffix"),
        ({"suffix": "no spaces"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": True}, "seed"),
        ({"training_file": "/etc/passwd"}, "training_file"),
        ({"validation_file": "rows.jsonl"}, "validation_file"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k": 5}}, "metadata.k"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"integrations": [{"type": "wandb"}] * 6}, "integrations"),
        ({"integrations": [{"type": "pencil"}]}, "integrations.0.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"colour": "red"}}]}, "integrations.0.wandb.colour"),
        ({"integrations": [{"type": "wandb", "mlflow": {}}]}, "integrations.0"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 0.1}}}},
            f"{HYPER}.beta",
        ),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.1}}}},
            "method.dpo.hyperparameters.beta",
        ),
        ({"x_finetuned": {"params": {"dataset": "x"}}}, "x_finetuned.params.dataset"),
        ({"x_finetuned": {"params": {"num_train_epochs": 1}}}, "x_finetuned.params.num_train_epochs"),
        ({"x_finetuned": {"colour": "red"}}, "x_finetuned.colour"),
        ({"model": "ft:smollm2:finetuned:bot:aaaaa00000"}, "model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    found, _, message = refused(**body)
    assert found == param
    assert message


def test_a_misspelt_model_is_told_the_nearest() -> None:
    assert "ft:smollm2:finetuned:bot:zzzzz99999" in refused(model="ft:smollm2:finetuned:bot:zzzzz99998")[2]


def test_a_file_for_something_else_is_refused() -> None:
    file = File(
        id="file-0123456789", seq=1, filename="a", purpose="batch", path="/f", bytes=1, created_at=0,
        created_by="somebody",
    )  # fmt: skip
    with pytest.raises(InvalidRequestError) as error:
        fine_tuning.require_purpose(parse(FineTuningRequest, LEAST), {file.id: file})
    assert (error.value.param, error.value.stable_code) == ("training_file", "wrong_purpose")


def test_a_refusal_of_the_job_speaks_of_the_request() -> None:
    def told(param: str, message: str = "") -> tuple[str | None, str]:
        error = InvalidRequestError(message, param=param)
        found = fine_tuning_places.in_its_words(error, METHODS["dpo"])
        return found.param, found.message

    assert told("params.dataset", "params.dataset: there is no file.") == (
        "training_file",
        "training_file: there is no file.",
    )
    assert told("params.eval_dataset")[0] == "validation_file"
    assert told("params.learning_rate")[0] == "method.dpo.hyperparameters.learning_rate_multiplier"
    assert told("params.callbacks.0.params")[0] == "integrations"
    assert told("params.max_length")[0] == "x_finetuned.params.max_length"
    assert told("kind")[0] == "method.type"
    assert told("metadata")[0] == "metadata"
