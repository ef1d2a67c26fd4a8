"""What a training begins with, when a model is named as OpenAI's clients name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finetuned.domain import model_names
from finetuned.domain.errors import ModelNotFoundError, NotFoundError
from finetuned.domain.registers import Alias, Model
from finetuned.engines.target import Names
from finetuned.job_request import JobRequest
from finetuned.spelling import nearest
from finetuned_sdk import JobKind

Json = Any

ADAPTER = "adapter"  # the kind of a model that lies over another
#: parameters of trainings that name a model, and those that name an adapter over it
OVER: Final = {"model": "adapter", "teacher": "teacher_adapter"}


def of(
    name: str, models: Mapping[str, Model], aliases: Mapping[str, Alias], *, param: str = "model"
) -> tuple[str, str | None]:
    """The model to begin with, and the adapter over it if there is one.

    A name that is not registered stays as it is: a directory or a hub id, which the trainer looks for. Raises
    ``NotFoundError`` for an ``ft:`` name that stands for nothing. A checkpoint's stays, too: :func:`plain` looks for it.
    """
    model = model_names.find(name, models, aliases)
    if model is not None and model.kind == ADAPTER and model.base is not None:
        return model.base, model.name
    if model is not None:
        return model.name, None
    if not name.startswith(model_names.PREFIX) or model_names.checkpoint_in(name) is not None:
        return name, None
    known = filter(None, map(model_names.fine_tuned, models.values()))
    raise NotFoundError(
        f"{param}: there is no model {name[:200]!r} (any more).{nearest(name, known)} GET /v1/models lists them.",
        param=param,
    )


def plain(request: JobRequest, kind: JobKind, names: Names) -> JobRequest:
    """A training's request with names that its trainer knows: those of registered models and of kept checkpoints.

    An alias or an ``ft:`` name may stand for another model tomorrow. One of an adapter where a model belongs becomes
    the model beneath and the adapter over it. Jobs that ask an engine keep the name: it is what their requests bear.
    Looks into directories. Raises ``ModelNotFoundError`` for a checkpoint that is not kept.
    """
    if kind.engine is not None:
        return request
    params = dict(request.params)
    for param in kind.model_params:
        name = params.get(param)
        if not isinstance(name, str):
            continue
        params[param], adapter = _plain(name, names, param=f"params.{param}")
        over = OVER.get(param)
        if adapter is not None and (over not in kind.model_params or params.get(over) is not None):
            params[param] = adapter  # which the trainer refuses, with the remedy
        elif adapter is not None and over is not None:
            params[over] = adapter
    return request.model_copy(update={"params": params})


def _plain(name: str, names: Names, *, param: str) -> tuple[str, str | None]:
    """The model, and the adapter over it if a name stands for one. A registered model's own name stays."""
    if name in names.models and name not in names.aliases:
        return name, None
    if name in names.checkpoints:
        path, base = names.checkpoints[name]
        return (base, name) if (path / "adapter_config.json").is_file() else (name, None)
    if model_names.checkpoint_in(name) is not None:
        raise ModelNotFoundError(
            f"{param}: the checkpoint {name[:200]!r} is not kept (any more); GET /v1/fine_tuning/jobs/…/checkpoints lists"
            " those that are.",
            param=param,
        )
    model = model_names.find(name, names.models, names.aliases)
    if model is None:
        return name, None
    return (model.base, model.name) if model.kind == ADAPTER and model.base else (model.name, None)
