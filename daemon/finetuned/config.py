"""The daemon's configuration: defaults, then a TOML file, then the environment, then the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from finetuned import config_sources
from finetuned.config_sources import Sources
from finetuned.config_sources import default_state_dir as default_state_dir  # noqa: PLC0414 - others take it from here
from finetuned.domain.errors import ConfigError
from finetuned.spelling import nearest

LONGEST_SOCKET_PATH = 107  # bytes; sun_path of unix(7) holds 108 with the closing zero
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class EngineSettings(BaseModel):
    """What an operator says about one kind of engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: Path | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("python")
    @classmethod
    def _there(cls, python: Path | None) -> Path | None:
        if python is not None and not python.is_absolute():
            raise ValueError(
                f"{python} must be the absolute path of an interpreter, for instance /opt/vllm/bin/python"
            )
        return python


class Config(BaseModel):
    """What an operator can set. Sizes are bytes, durations seconds. Made by :func:`load`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="the directory of the log, the jobs' bundles and the socket",
    )
    socket: Path = Field(
        default=Path(),
        description="the Unix socket; at most 107 bytes long. Default: `finetuned.sock` in `state_dir`",
    )
    listen: str = Field(
        default="127.0.0.1:8642",
        description="`host:port` of the TCP door, `[host]:port` for IPv6; empty for none",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=LOOPBACK_NAMES,
        description="names that a request over TCP may carry in its Host header, without port; `*` allows any",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="origins of web pages, as `https://host:port`, that may call this daemon over TCP beside its own",
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        description="connections that each door (TCP, Unix socket) holds at once; further ones are refused",
    )
    max_connections_per_client: int = Field(
        default=2048,
        ge=1,
        description="of these, how many one address may hold on TCP (behind a proxy all clients have its address), one user on the Unix socket",
    )
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="how long a client may take for the headers of a request, and to begin its first",
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="how long a client may take for a JSON body, plus a second for each KiB of it",
    )
    idle_timeout_s: float = Field(
        default=75.0,
        gt=0,
        le=86_400,
        description="how long a connection is kept open for the next request; a proxy should close its own earlier",
    )
    cpu_slots: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="jobs that run at once on CPU; set, it also means that GPUs are left alone. Default: the GPUs, and without any one for every four cores, at least one",
    )
    trust_remote_code: bool = Field(
        default=False, description="whether jobs may run code that comes with a model from a hub"
    )
    outbound_allow: tuple[str, ...] = Field(
        default=(),
        description="hosts and networks (CIDR) off the public internet, or without TLS, that may be called all the same",
    )
    secrets_dir: Path = Field(
        default=Path(),
        description="the directory of secrets, for its owner only. Default: `secrets` in `state_dir`",
    )
    data_roots: tuple[Path, ...] = Field(
        default=(),
        description="folders from which jobs of callers without scope admin may name files by path",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="runs that may crash before a job is given up, unless it says itself",
    )
    cancel_grace_s: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="how long a cancelled trainer may take to end before it is killed",
    )
    warm_start: bool = Field(
        default=True,
        description="whether trainers are forked from a process that keeps their imports, which takes seconds off each start",
    )
    warm_idle_s: float = Field(
        default=600.0,
        gt=0,
        le=86_400 * 7,
        description="after so long without a start that process is ended; the next job starts another",
    )
    warm_memory_bytes: int = Field(
        default=2 << 30,
        ge=64 << 20,
        description="how much memory that process may hold after its imports; beyond this jobs start without it",
    )
    preemption_min_run_s: float = Field(
        default=600.0,
        ge=0,
        le=86_400,
        description="how long a preemptible job runs at least before one of higher priority may have its devices",
    )
    drain_timeout_s: float = Field(
        default=90.0,
        ge=0,
        le=3600,
        description="how long jobs may take to save a checkpoint and leave when the system stops",
    )
    min_free_disk_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="below this much free disk under `state_dir` new jobs are refused, nothing is started, and running jobs are told",
    )
    disk_reserve_bytes: int = Field(
        default=16 << 20,
        ge=0,
        le=1 << 30,
        description="kept of that disk for the log, so that the ends of jobs can be recorded when it is full; 0 for none",
    )
    output_file_bytes: int = Field(
        default=10_000_000,
        ge=10_000,
        le=1 << 40,
        description="what an attempt prints goes to a file of about this size, and then to the next",
    )
    output_files: int = Field(
        default=7, ge=2, le=1000, description="of these files so many are kept, the newest"
    )
    keep_jobs_days: float | None = Field(
        default=None,
        gt=0,
        description="files of jobs that ended longer ago are removed, unless a model, a dataset or a live job needs them. Default: kept until `finetune delete`",
    )
    keep_jobs_bytes: int | None = Field(
        default=None,
        ge=0,
        description="beyond this the files of ended jobs are removed, those that ended longest ago first. Default: no limit",
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1024, le=1 << 30, description="the largest request body that is read"
    )
    max_upload_bytes: int = Field(
        default=1 << 36, ge=1, description="the largest dataset or file that is taken"
    )
    batch_max_requests: int = Field(
        default=50_000,
        ge=1,
        le=10_000_000,
        description="the most requests that a batch of /v1/batches may have",
    )
    batch_max_bytes: int = Field(
        default=200_000_000, ge=1, le=1 << 40, description="the largest file of such a batch"
    )
    upload_stall_s: float = Field(
        default=60.0, gt=0, le=3600, description="an upload of which no byte comes for this long is cut"
    )
    auth_failures: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="wrong tokens that an address may send at once; from then on one a second",
    )
    sse_heartbeat_s: float = Field(
        default=15.0, gt=0, le=600, description="how often an event stream without events shows that it lives"
    )
    sse_coalesce_s: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="how long events are gathered before they are sent together; more is slower and takes less CPU",
    )
    sse_write_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="a client that takes nothing off its stream or answer for this long is cut",
    )

    default_engine: str = Field(
        default="transformers",
        description="the engine that answers for a model where a request does not name one",
    )
    engines: dict[str, EngineSettings] = Field(
        default_factory=dict,
        description="tables `[engines.NAME]`: `python`, the interpreter of the environment that has the engine (default: the daemon's own), and `options`, parameters of its kind",
    )
    engine_idle_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400 * 7,
        description="an engine that nobody has asked for so long is ended; at once if another job waits for its device",
    )
    engine_wait_s: float = Field(
        default=120.0,
        ge=0,
        le=3600,
        description="how long a request that is answered at once waits for its engine, before it is told to come again",
    )

    engine_queue: int = Field(
        default=256,
        ge=1,
        le=1_000_000,
        description="requests that may wait for one engine or run on it at once; one more is told to come again (429)",
    )

    otel_endpoint: str = Field(
        default="",
        description="where traces go: the base URL of an OTLP collector over HTTP, `http://127.0.0.1:4318`; empty for none. Needs `finetuned[otel]`",
    )
    otel_sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="the share of requests that are traced, unless their caller decided; jobs are traced all",
    )

    @model_validator(mode="before")
    @classmethod
    def _beside_state(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        state_dir = Path(values.get("state_dir") or default_state_dir())
        beside = {"socket": state_dir / config_sources.SOCKET_NAME, "secrets_dir": state_dir / "secrets"}
        return values | {key: path for key, path in beside.items() if not values.get(key)}

    @field_validator("state_dir", "socket", "secrets_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _apart_from_state(cls, roots: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        for root in roots:
            if not root.is_absolute() or ".." in root.parts:
                raise ValueError(f"{root} must be an absolute path without '..'")
            for own in (info.data.get("state_dir"), info.data.get("secrets_dir")):
                if own is not None and _overlap(root.resolve(), own.resolve()):
                    raise ValueError(
                        f"{root} and {own} lie in each other, so that jobs could be given the daemon's own files;"
                        " choose a folder that holds data only"
                    )
        return roots

    @field_validator("outbound_allow")
    @classmethod
    def _readable_hosts(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        if entries:
            from finetuned.access.outbound import OutboundGuard  # noqa: PLC0415 - the command line reads a Config too

            OutboundGuard(entries)
        return entries

    @field_validator("socket")
    @classmethod
    def _short_enough(cls, path: Path) -> Path:
        length = len(os.fsencode(path))
        if length > LONGEST_SOCKET_PATH:
            raise ValueError(
                f"{path} is {length} bytes long and a Unix socket's path may have {LONGEST_SOCKET_PATH}; "
                "set `socket` (or FINETUNED_SOCKET) to a shorter one"
            )
        return path

    @field_validator("allowed_origins")
    @classmethod
    def _readable_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin.lower()):
                raise ValueError(
                    f"{origin!r} is no origin; write scheme and host, and the port unless it is the scheme's own,"
                    " for instance https://lab.example.org"
                )
        return tuple(origin.lower() for origin in origins)

    @field_validator("listen")
    @classmethod
    def _readable_address(cls, listen: str) -> str:
        split_address(listen)
        return listen

    @field_validator("otel_endpoint")
    @classmethod
    def _readable_endpoint(cls, endpoint: str) -> str:
        if endpoint and not re.fullmatch(r"https?://[^/\s]+\S*", endpoint):
            raise ValueError(f"{endpoint!r} is no URL like http://127.0.0.1:4318; empty switches tracing off")
        return endpoint

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the TCP door; ``None`` for none."""
        return split_address(self.listen)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def split_address(listen: str) -> tuple[str, int] | None:
    """``host:port`` or ``[host]:port`` as a pair; ``None`` if empty. Raises ``ValueError``."""
    if not listen:
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):(\d{1,5})", listen)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{listen!r} is no host:port, for instance 127.0.0.1:8642; empty switches TCP off")
    return match[1] or match[2], int(match[3])


def load(
    file: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration in force. ``file`` and ``overrides`` are the command line's; ``None`` counts as unset.

    Raises ``ConfigError`` that names the file, the line and the key, and the nearest valid key.
    """
    sources = config_sources.read(file, overrides, environ)
    try:
        return Config.model_validate(sources.values)
    except ValidationError as error:
        raise next(_problems(error, sources)) from None


def problems(sources: Sources) -> list[ConfigError]:
    """Everything that is wrong in what was given; nothing if :func:`load` takes it."""
    try:
        Config.model_validate(sources.values)
    except ValidationError as error:
        return list(_problems(error, sources))
    return []


def _problems(error: ValidationError, sources: Sources) -> Iterator[ConfigError]:
    for each in error.errors(include_url=False):
        key = str(each["loc"][0]) if each["loc"] else ""
        where = sources.where(key)
        if each["type"] == "extra_forbidden":
            remedy = nearest(key, Config.model_fields) or f" The keys are {', '.join(Config.model_fields)}."
            yield ConfigError(f"{where}: {key!r} is not a known key.{remedy}", param=key)
            continue
        reason = each["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        yield ConfigError(f"{where}: {key}: {reason}; got {each['input']!r}.", param=key)
