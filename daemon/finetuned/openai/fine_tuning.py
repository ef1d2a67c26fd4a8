"""The job that a fine-tuning request asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finetuned.datasets.references import FILE_SCHEME, SCHEME
from finetuned.domain import files, model_names
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.registers import Alias, File, Model
from finetuned.job_request import JobRequest
from finetuned.openai import hyperparameters, starting_point
from finetuned.openai.fine_tuning_places import places
from finetuned.openai.fine_tuning_request import (
    WITH_PROJECT,
    Extension,
    FineTuningRequest,
    Hyperparameters,
    Integration,
    TrackerSettings,
)
from finetuned.openai.hyperparameters import Method

Json = Any

PURPOSE: Final = "fine-tune"


def job_request(
    body: FineTuningRequest, *, job_id: str, models: Mapping[str, Model], aliases: Mapping[str, Alias]
) -> JobRequest:
    """The job that a request asks for, which is to have the id ``job_id``.

    Raises ``InvalidRequestError`` or ``NotFoundError`` that names the parameter.
    """
    if body.hyperparameters is not None and body.method is not None:
        raise InvalidRequestError(
            "hyperparameters: they belong into the method; give them there alone.", param="hyperparameters"
        )
    method = body.trains
    own = Extension() if body.x_finetuned is None else body.x_finetuned
    params = _trained_with(body, method, own.params.get("method", "lora"))
    params["model"], adapter = starting_point.of(body.model, models, aliases)
    if adapter is not None:
        params["adapter"] = adapter
    params["dataset"] = _rows(body.training_file, "training_file")
    if body.validation_file is not None:
        params["eval_dataset"] = _rows(body.validation_file, "validation_file")
    if body.suffix is not None:
        params["output_name"] = model_names.suffixed(body.suffix, job_id)
    if body.seed is not None:
        params["seed"] = body.seed
    if body.method is not None and body.method.distillation is not None:
        params |= _teacher(body.method.distillation.teacher, models, aliases)
    params |= _trackers(body.integrations or [], own.params.get("callbacks"))
    _refuse_said_elsewhere(own.params, params, method)
    return JobRequest(
        kind=method.kind,
        params={**own.params, **params},
        priority=own.priority,
        secrets=own.secrets,
        name=body.suffix,
        metadata=body.metadata or {},
    )


def require_purpose(body: FineTuningRequest, there: Mapping[str, File]) -> None:
    """Refuse files that were uploaded for something else. Those that there are not are found out later."""
    for param, named in (("training_file", body.training_file), ("validation_file", body.validation_file)):
        file = None if named is None else there.get(named)
        if file is not None and file.purpose != PURPOSE:
            raise InvalidRequestError(
                f"{param}: the file {file.id} has the purpose {file.purpose}; upload it again with purpose={PURPOSE}.",
                param=param,
                code="wrong_purpose",
            )


def _trained_with(body: FineTuningRequest, method: Method, tuned: Json) -> dict[str, Json]:
    section = None if body.method is None else getattr(body.method, method.name)
    given = body.hyperparameters if section is None else section.hyperparameters
    return hyperparameters.params(method, tuned=str(tuned), **(given or Hyperparameters()).model_dump())


def _rows(value: str, param: str) -> str:
    """The trainer's reference to a file or a dataset."""
    if value.startswith(files.PREFIX):
        return FILE_SCHEME + value
    if value.startswith(SCHEME):
        return value
    raise InvalidRequestError(
        f"{param}: {value[:120]!r} is no file's id; upload the rows with POST /v1/files and purpose fine-tune, and give"
        f" its id ({files.PREFIX}…), or name a dataset ({SCHEME}NAME).",
        param=param,
    )


def _teacher(
    teacher: str | None, models: Mapping[str, Model], aliases: Mapping[str, Alias]
) -> dict[str, Json]:
    if teacher is None:  # the extension's parameters name another
        return {}
    if teacher.startswith(("http://", "https://")):
        return {"teacher_endpoint": teacher}
    base, adapter = starting_point.of(teacher, models, aliases, param="method.distillation.teacher")
    return {"teacher": base} if adapter is None else {"teacher": base, "teacher_adapter": adapter}


def _trackers(integrations: list[Integration], others: Json) -> dict[str, Json]:
    """The trackers; ``others`` are the callbacks that are named beside them, however they are spelled."""
    told: dict[str, Json] = {}
    plain = [each.type for each in integrations if each.type not in WITH_PROJECT]
    if plain:
        told["report_to"] = plain
    callbacks = [_tracker(each) for each in integrations if each.type in WITH_PROJECT]
    if callbacks:
        told["callbacks"] = [*callbacks, *others] if isinstance(others, list) else callbacks
    return told


def _tracker(integration: Integration) -> dict[str, Json]:
    settings: TrackerSettings | None = getattr(integration, integration.type)
    given = {} if settings is None else settings.model_dump(exclude_none=True)
    if "name" in given:
        given["run_name"] = given.pop("name")
    return {"name": "tracker", "params": {"report_to": integration.type, **given}}


def _refuse_said_elsewhere(own: Mapping[str, Json], mapped: Mapping[str, Json], method: Method) -> None:
    """Refuse parameters that the request itself has a place for; a teacher and callbacks may be named here alone."""
    elsewhere = places(method)
    for name in own:
        always = name in elsewhere and not name.startswith("teacher") and name != "callbacks"
        if always or (name in mapped and name != "callbacks"):
            param = f"x_finetuned.params.{name}"
            raise InvalidRequestError(f"{param}: say it by {elsewhere[name]}.", param=param)
