"""The declaration of the engine ``transformers``. Imported by the daemon: no torch or transformers here."""

from __future__ import annotations

from finetuned_sdk import EngineKind, Host, RefusedError, Registry, Resources, hookimpl
from finetuned_training import checks
from finetuned_training.preloading import is_quantised
from finetuned_transformers.params import TransformersParams

MODULES = ("torch", "transformers")


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the engine."""
    register.job_kind(
        EngineKind(
            name="transformers",
            summary="The embedded engine: answers with a model of transformers, many requests at once.",
            params=TransformersParams,
            entry="finetuned_transformers.worker:run",
            check=check,
            resources=resources,
            model_params=("model",),
            preload=preload,
            endpoints=("/v1/chat/completions", "/v1/completions"),
            requires=MODULES,
        )
    )


def resources(_params: TransformersParams, _host: Host) -> Resources:
    """One device: a GPU, or a CPU slot."""
    return Resources(devices=1)


def preload(params: TransformersParams) -> tuple[str, ...]:
    """What may be imported before the engine starts."""
    return () if is_quantised(params.model) else ("finetuned_transformers.worker",)


def check(params: TransformersParams, host: Host) -> None:
    """Refuse an engine that cannot start. Raises ``RefusedError`` that names the parameter."""
    checks.require_installed(MODULES)
    checks.check_model(params.model, "model", host)
    if params.dtype == "float16" and not host.has_gpu:
        raise RefusedError("float16 needs a GPU and there is none; use float32.", param="dtype")
