"""The worker's side of a job: what a trainer is handed and how it reports.

:class:`WorkerContext` is a protocol. The real one writes facts to the attempt's spool
(``finetuned_sdk.worker``); ``finetuned_sdk.testing.RecordingContext`` keeps them in memory for tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from finetuned_sdk.engines.state import EngineState
    from finetuned_sdk.retention import Retention


class Progress(TypedDict, total=False):
    """The data of a ``job.progress`` event. Every key is always there; ``None`` where there is no figure."""

    progress: float  # percent, 0 to 100
    current_step: int
    total_steps: int | None
    current_epoch: float | None
    total_epochs: float | None
    loss: float | None
    eval_loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    mean_token_accuracy: float | None
    samples_per_second: float | None
    tokens_per_second: float | None
    data_wait_fraction: float | None  # share of the step spent waiting for data, 0 to 1
    rss_gb: float | None
    gpu_memory_allocated_gb: float | None
    gpu_utilization_percent: float | None
    eta_seconds: float | None


PROGRESS_FIELDS: tuple[str, ...] = tuple(Progress.__annotations__)


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Why a worker is asked to stop at its next step boundary, and whether to save a checkpoint first."""

    reason: str
    checkpoint: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What validation found in a dataset that can be trained on. Counts are rows; fractions are 0 to 1.

    ``masked_fraction`` is the share of tokens that carry no loss (prompt, padding excluded);
    ``truncated_rows`` would be cut at ``max_length``; ``unanswered_rows`` have no token to learn from.
    """

    dataset: str
    format: str
    rows: int
    tokens: int | None = None
    masked_fraction: float | None = None
    truncated_rows: int = 0
    unanswered_rows: int = 0
    max_tokens: int | None = None
    sha256: str | None = None
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {**asdict(self), "warnings": list(self.warnings), "extra": dict(self.extra)}


class WorkerContext(Protocol):
    """What a job's entry function is given. All methods may be called from any thread of the worker."""

    @property
    def job_id(self) -> str:
        """The job's id."""

    @property
    def attempt(self) -> int:
        """The number of this attempt: its fencing token."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Facts about the job for the model card: ``kind``, ``name``, ``params`` as submitted, ``retry_of``."""

    @property
    def work_dir(self) -> Path:
        """Scratch space of this attempt; a trainer's ``output_dir``. On the file system of the checkpoints."""

    @property
    def cache_dir(self) -> Path:
        """Where what was worked out may be kept for other jobs and attempts, by content.

        Anything there may be gone the next time, and several workers may write at once: write files whole, by rename.
        """

    @property
    def artifact_dir(self) -> Path:
        """Where results belong before they are published with :meth:`artifact`."""

    @property
    def resume_from(self) -> Path | None:
        """The complete checkpoint to go on from, or ``None`` for a fresh start."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The devices that this attempt holds: ``gpu:<uuid>`` or ``cpu:<n>``."""

    @property
    def allow_remote_code(self) -> bool:
        """The operator's word on ``trust_remote_code``."""

    @property
    def callbacks(self) -> tuple[CallbackSpec, ...]:
        """The callbacks that the job lists, in order; build them with :meth:`load_callbacks`."""

    @property
    def stop_requested(self) -> StopRequest | None:
        """Set when the daemon wants the worker to stop at its next step boundary. Cheap: look every step."""

    @property
    def checkpoint_requested(self) -> bool:
        """Whether somebody asked for a checkpoint at the next step; :meth:`checkpoint` settles it. Cheap."""

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """This attempt's complete checkpoints, oldest step first; their manifests hold step and metrics."""

    @property
    def engine(self) -> EngineState:
        """The engine that the job's kind says it asks, as it is now: read from a file, so look some times a second at most.

        It may end and come again at any time; while there is none the phase is ``waiting_for_engine``.
        """

    def load_callbacks(self) -> list[Any]:
        """Import and create the job's callbacks, in order. Raises ``JobError`` if one cannot be made."""

    def model_path(self, param: str) -> str:
        """The directory or hub id behind the model reference ``params.<param>``; registered names resolved."""

    def secret(self, name: str) -> str:
        """The value of a secret that the job names, by the name it has there or as ``secret:<name>``.

        It is masked in the worker's output and in what it reports; it belongs in no file. Raises ``JobError``
        if the job does not name it. Names in capitals are environment variables of the worker as well.
        """

    def dataset_path(self, param: str) -> str:
        """The file behind the reference ``params.<param>``, or what stands there if it is none (a path, a hub id)."""

    def dataset_version(self, param: str) -> str | None:
        """The SHA-256 of the content that ``params.<param>`` refers to; ``None`` if it is no such reference."""

    def phase(self, name: str) -> None:
        """Say what the worker is doing; any name will do, those of ``finetuned_sdk.phases`` have limits of their own.

        Until the first step is reported all but ``evaluating`` and ``saving`` is the start, which may show no sign of
        work for the job's ``start_s``. After that an attempt that reports no step for ``stall_s`` seconds is taken to be
        stuck, so enter ``evaluating`` and ``saving`` (``evaluation_s``, ``saving_s``) for what takes longer, and come back.
        """

    def advancing(self) -> None:
        """Show that the work goes on where there is no step to report: a row was read, a batch evaluated. Cheap."""

    def progress(
        self,
        *,
        current_step: int,
        total_steps: int | None,
        final: bool = False,
        interval: float | None = None,
        **metrics: float | str | bool | None,
    ) -> None:
        """Report a step. Known metrics are the fields of :class:`Progress`; others are passed on as they are.

        ``progress``, ``eta_seconds``, ``rss_gb`` and the GPU figures are filled in here. At most ten reports a
        second are written, or one in ``interval`` seconds if that is longer (the newest wins); ``final=True`` is
        always written.
        """

    def advice(self, setting: str, message: str, **figures: float) -> None:
        """Tell the user which setting to change, and why, in one sentence."""

    def audit(self, report: AuditReport) -> None:
        """Report what validation found."""

    def evaluation(self, name: str, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Report figures of an evaluation (never rows or answers: those belong in an artifact)."""

    def checkpoint(self, directory: Path, *, step: int, metrics: Mapping[str, float | None]) -> Path:
        """Make ``directory`` a complete checkpoint and return where it now lies.

        Its files are fsynced, it is renamed into the attempt's ``checkpoints/``, a manifest with sizes and
        CRC-32s is written last, and only then is it reported. ``directory`` must lie in :attr:`work_dir`.
        """

    def discard_checkpoint(self, directory: Path) -> None:
        """Delete a checkpoint of this attempt, unless no other one is whole. :meth:`retain` knows the usual rules."""

    def retain(
        self,
        rule: Retention,
        *,
        protected: Iterable[Path] = (),
        figures: Mapping[int, float | None] | None = None,
    ) -> None:
        """Delete the job's checkpoints that ``rule`` does not keep, those of earlier attempts too.

        Call it after each checkpoint. Those in ``protected`` stay besides. ``figures`` tells the rule's metric by step
        where the checkpoints' own metrics lack it. Nothing is deleted unless one that stays is whole to the last byte.
        """

    def artifact(self, path: Path, *, kind: str) -> None:
        """Publish a finished file or directory below :attr:`artifact_dir`, with sizes and CRC-32s.

        Of very many files (a thousand, or long names) the event tells the size alone; the manifest has all. A single
        file of the kind ``file:PURPOSE`` becomes one of the OpenAI API when the job ends, however it ends.
        """

    def model(self, path: Path, *, name: str, base: str | None, kind: str, **lineage: Any) -> None:
        """Register a published artifact as a model under ``name`` once the job succeeds. ``kind``: adapter, full, …"""

    def result(self, **values: Any) -> None:
        """Set fields of the job's ``result``; later calls add to earlier ones."""


@dataclass(frozen=True, slots=True)
class CallbackSpec:
    """One entry of a job's ``callbacks`` as the worker sees it.

    With ``params_model`` (``"module:Class"`` of the callback's pydantic model) ``params`` are validated before
    the entry gets them; without it the entry is given the mapping.
    """

    name: str
    entry: str
    params: Mapping[str, Any]
    params_model: str | None = None
