"""What a plugin author imports: hook markers, job kinds, callbacks, estimates and the worker's context.

A plugin is a module named in the entry-point group ``finetuned``. It declares, it does not work::

    from finetuned_sdk import JobKind, Registry, hookimpl

    @hookimpl
    def finetuned_register(register: Registry) -> None:
        register.job_kind(JobKind(name="sft", params=SFTParams, entry="my_plugin.trainer:train", ...))

The daemon imports that module, so it must not import torch. The work itself is named by a string
(``"package.module:function"``) and imported in the worker process only; it is called as ``run(ctx, params)``
with a :class:`WorkerContext` and the validated params model.

A plugin says in its module which version of the SDK it is written for, ``FINETUNED_SDK = "1.0"``: it is loaded where
``SDK_VERSION`` is that or a later one with the same major version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from finetuned_sdk.context import AuditReport, Progress, StopRequest, WorkerContext
    from finetuned_sdk.errors import BadDatasetError, JobError, PauseError, RefusedError, RowProblem
    from finetuned_sdk.hooks import PROJECT_NAME, hookimpl, hookspec
    from finetuned_sdk.kinds import (
        Callback,
        Device,
        EngineEnvironment,
        EngineKind,
        EngineNeed,
        Estimate,
        Host,
        JobKind,
        Resources,
    )
    from finetuned_sdk.registry import Registry

__all__ = (
    "PROJECT_NAME",
    "SDK_VERSION",
    "AuditReport",
    "BadDatasetError",
    "Callback",
    "Device",
    "EngineEnvironment",
    "EngineKind",
    "EngineNeed",
    "Estimate",
    "Host",
    "JobError",
    "JobKind",
    "PauseError",
    "Progress",
    "RefusedError",
    "Registry",
    "Resources",
    "RowProblem",
    "StopRequest",
    "WorkerContext",
    "hookimpl",
    "hookspec",
)

#: ``major.minor``. A major version breaks what plugins rely on, a minor one adds to it.
SDK_VERSION: Final = "1.1"

# The runner of every attempt imports this package for ``bundle`` alone and must start in milliseconds, so
# the names above are imported when they are first used: pydantic and pluggy cost a tenth of a second.
_HOMES = {
    "AuditReport": "context",
    "Progress": "context",
    "StopRequest": "context",
    "WorkerContext": "context",
    "BadDatasetError": "errors",
    "JobError": "errors",
    "PauseError": "errors",
    "RefusedError": "errors",
    "RowProblem": "errors",
    "PROJECT_NAME": "hooks",
    "hookimpl": "hooks",
    "hookspec": "hooks",
    "Callback": "kinds",
    "Device": "kinds",
    "EngineEnvironment": "kinds",
    "EngineKind": "kinds",
    "EngineNeed": "kinds",
    "Estimate": "kinds",
    "Host": "kinds",
    "JobKind": "kinds",
    "Resources": "kinds",
    "Registry": "registry",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
