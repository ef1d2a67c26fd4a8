"""Declarations: what a job kind is, what it needs, and what the host has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from finetuned_sdk.salvage import Leftovers, Salvaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One schedulable slot. ``id`` is ``gpu:<uuid>`` or ``cpu:<n>``; ``memory_bytes`` is its total memory."""

    id: str
    kind: str
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a declaration may know of the machine when it checks, sizes or estimates a job.

    ``models`` maps registered names to directories, ``datasets`` the references to datasets that the job makes
    (``dataset:colours``) to files; ``allow_remote_code`` is the operator's word on
    ``trust_remote_code``; ``memory_bytes``, ``memory_free_bytes`` (0: not known) and ``disk_free_bytes`` are of the host.
    """

    devices: tuple[Device, ...] = ()
    cpu_count: int = 1
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0
    allow_remote_code: bool = False
    models: Mapping[str, Path] = field(default_factory=dict)
    datasets: Mapping[str, Path] = field(default_factory=dict)

    def dataset(self, value: str) -> str:
        """The file behind a reference to a dataset; what is none (a path, a hub id) as it is."""
        found = self.datasets.get(value)
        return value if found is None else str(found)

    @property
    def has_gpu(self) -> bool:
        """Whether any device is a GPU."""
        return any(device.kind == "gpu" for device in self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an attempt holds while it runs: whole devices of whatever kind the host schedules.

    GPUs where there are any, else CPU slots. Zero means the job needs no device.
    """

    devices: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job will probably take at its peak; ``None`` where it is not known. Seconds and bytes.

    ``device_bytes`` is GPU memory, ``host_bytes`` the host's. ``breakdown`` says what the one that the training fills
    (GPU memory, else the host's) is made of: bytes by part, ``{"weights": …, "optimizer": …}``.
    """

    duration_s: float | None = None
    device_bytes: int | None = None
    host_bytes: int | None = None
    disk_bytes: int | None = None
    breakdown: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineNeed:
    """The engine that a job's worker asks while it runs: over which model, of which kind, and how it is set up.

    ``model`` is a reference as ``model_params`` hold it: a directory, a registered name or a hub id; of an adapter the
    engine has the model beneath. ``engine`` is the name of an :class:`EngineKind`; ``None`` takes the daemon's default.
    ``options`` are parameters of that kind. Jobs that need the same share one engine. The kind must answer ``endpoint``,
    or the job is refused.
    """

    model: str
    engine: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """One kind of work that the daemon can be asked for.

    name        what users write: ``sft``
    summary     one sentence for ``finetune kinds``
    params      the pydantic model of its parameters (``extra="forbid"``; every field described)
    entry       ``"module:function"``, called in the worker as ``function(ctx, params)``
    validator   ``"module:function"`` of the same shape, run as an attempt of its own, without a device,
                before the job is queued; raises ``BadDatasetError`` or ``JobError``. ``None`` skips it
    check       what can be refused without reading data: raises ``RefusedError``
    resources   how many devices the job holds
    estimate    what it will take, as far as it can be told without reading data
    alternatives    what could be changed so that it takes less memory: groups of changes to params, the least costly
                group first, and in each the smallest change first. A refusal names the first that fits of each
    effective   the params as this host would run them, defaults that depend on it worked out
    steps       how many optimizer steps it will make, if that can be told; may read the dataset's file
    speed_params    names of params that decide how long a step takes: by jobs with the same ones it is foretold
    model_params    names of params that are model references (directory, registered name or hub id); the
                    daemon resolves registered names, the worker asks ``ctx.model_path(name)``
    dataset_params  names of params that may refer to a dataset (``dataset:NAME``, ``dataset:NAME@HASH``) or
                    a file (``file:ID``); the daemon resolves them at submission, the worker asks
                    ``ctx.dataset_path(name)``. What is no reference there is a path or a hub id, and checked as
                    those of ``path_params`` are
    reduce_memory   given validated params, the params to change so that the same training takes less memory (half
                    the per-device batch, twice the accumulation); ``None`` when there is nothing left to halve
    timeouts        seconds that differ from the daemon's defaults: stall_s, start_s, evaluation_s, saving_s, …
    path_params     names of the other params that may name a file, a folder or a URL of the server's side:
                    datasets, inputs, outputs, trackers. Callers who may name neither are refused
                    (``path_not_allowed``); a name that is declared in neither tuple is not looked at
    preload     given validated params, the modules that the job imports first and that take long; the daemon may fork
                its worker from a process that has them already. None where it must import by itself. Importing them
                may start no thread and initialise no GPU; ``bitsandbytes`` cannot be imported by them
    engine      the engine that the worker asks (``ctx.engine``), if it asks one. The daemon sees to it that there is one
    salvage     makes results of what the attempts of a job have left that was cancelled or has failed, in a thread of the
                daemon: twice must equal once. What it makes is published in the transaction that ends the job. It imports
                nothing heavy, and may raise ``JobError`` or ``OSError``: the job then ends without
    """

    name: str
    summary: str
    params: type[BaseModel]
    entry: str
    validator: str | None = None
    check: Callable[[Any, Host], None] | None = None
    resources: Callable[[Any, Host], Resources] | None = None
    estimate: Callable[[Any, Host], Estimate] | None = None
    alternatives: Callable[[Any, Host], Iterable[Iterable[Mapping[str, Any]]]] | None = None
    effective: Callable[[Any, Host], Mapping[str, Any]] | None = None
    steps: Callable[[Any, Host], int | None] | None = None
    speed_params: tuple[str, ...] = ()
    model_params: tuple[str, ...] = ()
    dataset_params: tuple[str, ...] = ()
    path_params: tuple[str, ...] = ()
    reduce_memory: Callable[[Any], Mapping[str, Any] | None] | None = None
    timeouts: Mapping[str, float | None] = field(default_factory=dict)
    preload: Callable[[Any], tuple[str, ...]] | None = None
    engine: Callable[[Any, Host], EngineNeed | None] | None = None
    salvage: Callable[[Leftovers], Salvaged] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnvironment:
    """An environment of its own for an engine: what pip installs on a machine with GPUs, and on one without.

    ``removed`` is uninstalled afterwards on a machine without: what its index has there only for GPUs. ``check`` is a
    module whose import shows that it works.
    """

    gpu: tuple[str, ...]
    cpu: tuple[str, ...]
    removed: tuple[str, ...] = ()
    check: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind(JobKind):
    """A kind of engine: a job that loads a model and answers until nobody asks any more.

    Its ``params`` have a field ``model``, the base model. Its entry makes a :class:`finetuned_sdk.engines.Engine` and
    hands it to :func:`finetuned_sdk.engines.serve`. The daemon submits such jobs itself, and ends them.

    ``endpoints``   of the OpenAI API that it answers, for instance ``/v1/chat/completions``
    ``requires``    modules of its environment beside the SDK: looked for before it is started in the daemon's own
    ``environment``  where it cannot run in the daemon's own: what ``finetune engines install`` makes
    """

    endpoints: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    environment: EngineEnvironment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A named trainer callback that a job may list: ``callbacks: [{"name": …, "params": {…}}]``.

    ``entry`` is ``"module:function"``, called in the worker as ``function(ctx, params)``; it returns a
    ``transformers.TrainerCallback``. ``check`` refuses at submission what can be seen then: raises ``JobError``.
    ``path_params`` are names of params that may name a file, a folder or a URL, as :class:`JobKind`'s are.
    So are ``dataset_params`` of params that may refer to a dataset; the entry is given the file's path in their place.
    """

    name: str
    summary: str
    params: type[BaseModel]
    entry: str
    check: Callable[[Any, Host], None] | None = None
    path_params: tuple[str, ...] = ()
    dataset_params: tuple[str, ...] = ()
