"""The context that a job's entry is given in the worker: reports become facts, files become artifacts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from finetuned_sdk import checkpoints, fields, manifest, retention
from finetuned_sdk.bundle import Bundle, Spec, read_json
from finetuned_sdk.context import AuditReport, CallbackSpec, StopRequest
from finetuned_sdk.entries import make_callback
from finetuned_sdk.errors import JobError, PluginError
from finetuned_sdk.manifest import Manifest
from finetuned_sdk.retention import Retention
from finetuned_sdk.worker_progress import INTERVAL, ProgressReporter
from finetuned_sdk.worker_pulse import Pulse

if TYPE_CHECKING:
    from finetuned_sdk.engines.state import EngineState

LISTED_FILES: Final = 1000  # an artifact of more files leaves them to its manifest …
LISTED_BYTES: Final = 1 << 16  # … and so does one of longer names

log = logging.getLogger(__name__)


class FactSink(Protocol):
    """Where facts go: the spool, or a list in tests."""

    def append(self, fact_type: str, data: Mapping[str, Any]) -> None:
        """Keep one fact."""


class Context:
    """``finetuned_sdk.context.WorkerContext`` over a bundle and a sink of facts."""

    def __init__(
        self,
        bundle: Bundle,
        spec: Spec,
        sink: FactSink,
        *,
        clock: Callable[[], float] = time.monotonic,
        progress_interval: float = INTERVAL,
        secrets: Mapping[str, str] | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._bundle = bundle
        self._spec = spec
        self._sink = sink
        self._secrets = dict(secrets or {})
        self.pulse = pulse or Pulse(clock=clock)
        self._progress = ProgressReporter(
            lambda report: sink.append("progress", report), clock=clock, interval=progress_interval
        )
        self._results: dict[str, Any] = {}
        self._stop: StopRequest | None = None
        self._stop_seen = False
        self._checkpoint_requested = False
        self._resumed_step = None if spec.resume_from is None else checkpoints.step_of(Path(spec.resume_from))
        self._files = threading.Lock()  # one checkpoint or artifact at a time

    @property
    def job_id(self) -> str:
        return self._spec.job

    @property
    def attempt(self) -> int:
        return self._spec.attempt

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._spec.metadata

    @property
    def work_dir(self) -> Path:
        return self._bundle.work

    @property
    def cache_dir(self) -> Path:
        return self.work_dir / "cache" if self._spec.cache is None else Path(self._spec.cache)

    @property
    def artifact_dir(self) -> Path:
        return self._bundle.artifacts

    @property
    def resume_from(self) -> Path | None:
        return None if self._spec.resume_from is None else Path(self._spec.resume_from)

    @property
    def device_ids(self) -> tuple[str, ...]:
        return self._spec.devices

    @property
    def allow_remote_code(self) -> bool:
        return self._spec.allow_remote_code

    @property
    def callbacks(self) -> tuple[CallbackSpec, ...]:
        return self._spec.callbacks

    @property
    def stop_requested(self) -> StopRequest | None:
        if self._stop is not None:
            self._stop_seen = True
        return self._stop

    @property
    def checkpoint_requested(self) -> bool:
        return self._checkpoint_requested

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        return tuple(checkpoints.complete(self._bundle.checkpoints))

    @property
    def engine(self) -> EngineState:
        from finetuned_sdk.engines.state import EngineState

        data = read_json(self._bundle.engine_path)
        return EngineState() if data is None else EngineState.from_data(data)

    def load_callbacks(self) -> list[Any]:
        return [make_callback(self, spec) for spec in self._spec.callbacks]

    def model_path(self, param: str) -> str:
        path = self._spec.models.get(param, self._spec.params.get(param))
        if not isinstance(path, str):
            raise PluginError(
                f"The job has no model in its parameter {param!r}; name it there or declare it in model_params."
            )
        return path

    def secret(self, name: str) -> str:
        value = self._secrets.get(name)
        if value is None:
            references = {reference: each for each, reference in self._spec.secrets.items()}
            value = self._secrets.get(references.get(name, ""))
        if value is None:
            raise JobError(
                f"The job names no secret {name!r}; submit it with one, for instance"
                f' secrets: {{"{name.removeprefix("secret:")}": "secret:NAME"}}.',
                code="secret_missing",
            )
        return value

    def dataset_path(self, param: str) -> str:
        found = self._spec.datasets.get(param)
        path = self._spec.params.get(param) if found is None else found["path"]
        if not isinstance(path, str):
            raise PluginError(
                f"The job has no dataset in its parameter {param!r}; name it there or declare it in dataset_params."
            )
        return path

    def dataset_version(self, param: str) -> str | None:
        found = self._spec.datasets.get(param)
        return None if found is None else found["version"]

    def phase(self, name: str) -> None:
        self._progress.flush()
        name = fields.text(name, "A phase", limit=fields.NAME_LIMIT)
        self._sink.append("phase", {"phase": name})
        self.pulse.note(phase=name)

    def advancing(self) -> None:
        self.pulse.note()

    def progress(
        self,
        *,
        current_step: int,
        total_steps: int | None,
        final: bool = False,
        interval: float | None = None,
        **metrics: float | str | bool | None,
    ) -> None:
        step = fields.whole(current_step, "current_step")
        self.pulse.note(step=step)
        self._progress.report(
            step,
            None if total_steps is None else fields.whole(total_steps, "total_steps"),
            fields.scalars(metrics),
            final=final,
            interval=interval,
        )

    def advice(self, setting: str, message: str, **figures: float) -> None:
        self._sink.append(
            "advice",
            {
                "setting": fields.text(setting, "The setting of an advice", limit=fields.NAME_LIMIT),
                "message": fields.text(message, "The message of an advice"),
                "figures": fields.figures(figures, "The figure"),
            },
        )

    def audit(self, report: AuditReport) -> None:
        self._sink.append("audit", {"report": report.as_dict()})

    def evaluation(self, name: str, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self._progress.flush()
        self._sink.append(
            "evaluation",
            {
                "name": fields.text(name, "The name of an evaluation", limit=fields.NAME_LIMIT),
                "metrics": fields.figures(metrics, "The metric"),
                "step": None if step is None else fields.whole(step, "step"),
            },
        )
        self.pulse.note()

    def checkpoint(self, directory: Path, *, step: int, metrics: Mapping[str, float | None]) -> Path:
        _require_below(directory, self.work_dir, "A checkpoint is made in ctx.work_dir")
        step, figures = fields.whole(step, "step"), fields.figures(metrics, "The metric")
        self._checkpoint_requested = False
        with self._files:
            target, content = checkpoints.publish(
                directory, self._bundle.checkpoints, step=step, metrics=figures
            )
        self._progress.flush()
        self._sink.append(
            "checkpoint",
            {"step": step, "path": str(target), "bytes": content.total_bytes, "metrics": figures},
        )
        self.pulse.note()
        return target

    def discard_checkpoint(self, directory: Path) -> None:
        _require_below(
            directory, self._bundle.checkpoints, "Only this attempt's checkpoints can be discarded"
        )
        with self._files:
            others = [path for path in checkpoints.complete(self._bundle.checkpoints) if path != directory]
            if not any(map(checkpoints.is_whole, reversed(others))):
                return
            checkpoints.discard(directory)
        self._sink.append("checkpoint_discarded", {"path": str(directory)})

    def retain(
        self,
        rule: Retention,
        *,
        protected: Iterable[Path] = (),
        figures: Mapping[int, float | None] | None = None,
    ) -> None:
        with self._files:
            ordered = retention.newest_first(
                checkpoints.of_job(self._bundle.path, self.attempt),
                attempt=self.attempt,
                resumed_step=self._resumed_step,
            )
            spare = retention.spare(ordered, rule, protected=set(protected), figures=figures)
            if not spare:
                return
            if not any(checkpoints.is_whole(each.path) for each in ordered if each not in spare):
                log.warning("No checkpoint is deleted: none of those that would stay is whole.")
                return
            for each in spare:
                try:
                    checkpoints.discard(each.path)
                except OSError as error:  # its files stay; the work must not end for that
                    log.warning("%s cannot be deleted: %s", each.path, error)
                    continue
                self._sink.append("checkpoint_discarded", {"path": str(each.path)})

    def artifact(self, path: Path, *, kind: str) -> None:
        _require_below(path, self.artifact_dir, "An artifact is published from ctx.artifact_dir")
        name = path.relative_to(self.artifact_dir).as_posix()
        kind = fields.text(kind, "The kind of an artifact", limit=fields.NAME_LIMIT)
        if kind.startswith("file:") and not path.is_file():
            raise PluginError(f"{path} is no file, and an artifact of the kind {kind} must be one.")
        with self._files:
            content = manifest.seal(path, kind=kind)
        self._sink.append(
            "artifact",
            {
                "name": name,
                "kind": kind,
                "path": str(path),
                "bytes": content.total_bytes,
                "files": _listed(content),
            },
        )

    def model(self, path: Path, *, name: str, base: str | None, kind: str, **lineage: Any) -> None:
        if not manifest.manifest_path(path).is_file():
            raise PluginError(f"{path} is no published artifact; call ctx.artifact on it before ctx.model.")
        self._sink.append(
            "model",
            {
                "name": fields.model_name(name),
                "path": str(path),
                "kind": fields.text(kind, "The kind of a model", limit=fields.NAME_LIMIT),
                "base": None if base is None else fields.text(base, "The base of a model"),
                "lineage": lineage,
            },
        )

    def result(self, **values: Any) -> None:
        self._results.update(values)

    # ---- the worker's own side -------------------------------------------------------------------------

    @property
    def results(self) -> Mapping[str, Any]:
        """The result so far."""
        return self._results

    @property
    def was_stopped(self) -> bool:
        """Whether the job's code has seen a stop request: then its return is no success."""
        return self._stop_seen

    def request_stop(self, reason: str, *, checkpoint: bool) -> None:
        """Let :attr:`stop_requested` say so."""
        self._stop = StopRequest(reason, checkpoint)

    def request_checkpoint(self) -> None:
        """Let :attr:`checkpoint_requested` say so until the next checkpoint."""
        self._checkpoint_requested = True

    def flush_due_progress(self) -> None:
        """Write the progress report that waits, if it has waited its time."""
        self._progress.flush_if_due()

    def flush_progress(self) -> None:
        """Write the progress report that waits."""
        self._progress.flush()


def _listed(content: Manifest) -> list[dict[str, Any]]:
    names = sum(len(entry.path.encode("utf-8", "replace")) for entry in content.files)
    if len(content.files) > LISTED_FILES or names > LISTED_BYTES:
        return []
    return [asdict(entry) for entry in content.files]


def _require_below(path: Path, home: Path, rule: str) -> None:
    if path == home or not path.resolve().is_relative_to(home.resolve()):
        raise PluginError(f"{rule}; {path} is not below {home}.")
