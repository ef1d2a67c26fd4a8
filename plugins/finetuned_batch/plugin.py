"""The declaration of ``batch``. The daemon imports this module."""

from __future__ import annotations

from typing import Final

from finetuned_batch.params import BatchParams
from finetuned_batch.salvage import salvage
from finetuned_sdk import EngineNeed, Host, JobKind, Registry, Resources, hookimpl

FINETUNED_SDK = "1.0"
#: what the worker begins with; anyio would import its backend only when the first request is due
IMPORTS: Final = ("finetuned_batch.driver", "anyio._backends._asyncio")


def _no_device(params: BatchParams, host: Host) -> Resources:
    del params, host
    return Resources(devices=0)  # its engine has one


def _engine(params: BatchParams, host: Host) -> EngineNeed:
    del host
    return EngineNeed(
        model=params.model,
        engine=params.engine,
        options=params.engine_options,
        endpoint=params.endpoint,
    )


def _imports(params: BatchParams) -> tuple[str, ...]:
    del params
    return IMPORTS


BATCH: Final = JobKind(
    name="batch",
    summary="Ask a model all requests of a file, each exactly once.",
    params=BatchParams,
    entry="finetuned_batch.driver:run",
    resources=_no_device,
    engine=_engine,
    model_params=("model",),
    dataset_params=("input",),
    preload=_imports,
    salvage=salvage,
)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(BATCH)
