"""Entries: what ``"module:name"`` stands for, imported, and given parameters that were validated."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from finetuned_sdk.context import CallbackSpec, WorkerContext
from finetuned_sdk.errors import JobError, PluginError, RefusedError


def load_entry(entry: str) -> Any:
    """The function or class behind ``"module:name"``. Raises ``PluginError`` if there is none."""
    module, _, name = entry.partition(":")
    found = getattr(import_module(module), name, None)
    if found is None:
        raise PluginError(f"{module} has no {name}; the plugin that declares {entry!r} must be corrected.")
    return found


def validated(model: str, params: Mapping[str, Any]) -> Any:
    """The parameters as the pydantic model ``"module:Class"``. Raises ``RefusedError`` if they do not fit."""
    try:
        return load_entry(model).model_validate(dict(params))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise RefusedError(f"{param}: {first['msg']}.", param=param) from error


def make_callback(ctx: WorkerContext, spec: CallbackSpec) -> Any:
    """The callback that a job lists. Raises ``JobError`` if it cannot be made."""
    try:
        create = load_entry(spec.entry)
        params = validated(spec.params_model, spec.params) if spec.params_model else spec.params
        return create(ctx, params)
    except JobError:
        raise
    except Exception as error:
        raise PluginError(
            f"The callback {spec.name!r} cannot be made ({type(error).__name__}: {error});"
            " correct its params or leave it out."
        ) from error
