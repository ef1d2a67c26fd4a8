"""What commands print with ``--json`` where it is not an answer of the daemon as it stands.

docs/reference/cli-json.md is generated from these and from ``finetuned.wire``.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from typing_extensions import TypedDict

from finetuned import wire

Json = Any
Item = TypeVar("Item")


class Listing(TypedDict, Generic[Item]):
    """A list. ``has_more`` says that there are more of them than were asked for."""

    data: list[Item]
    has_more: bool


class Gone(TypedDict):
    """What was named is gone. Nothing is printed if that failed: the error is on stderr."""

    id: str
    object: str
    deleted: bool


class TimelineRow(TypedDict):
    """A line of a job's timeline. ``state`` is null for what happened within a state; ``seconds`` for what lasts."""

    seq: int
    at: str
    state: str | None
    phase: str | None
    seconds: float | None
    actor: str
    text: str


class ShownJob(wire.Job):
    """A job with its timeline."""

    timeline: list[TimelineRow]


class Line(TypedDict):
    """One line of what a job's processes printed."""

    line: str


class Exported(wire.Artifact):
    """What was brought here: the ``job`` that made it, where it is (``target``), and of how many ``files`` it is."""

    job: str
    target: str
    files: int


class Fetched(TypedDict):
    """A dataset's file that was brought here, and where it is."""

    id: str
    version: str
    target: str


class FetchedFile(TypedDict):
    """A file that was brought here, and where it is."""

    id: str
    target: str


class Look(TypedDict):
    """What ``top`` shows: the machine, the live attempts, the live jobs and the newest, as they were ``at`` a time."""

    at: str
    system: wire.System
    workers: list[wire.Worker]
    jobs: list[wire.Job]


class Change(TypedDict):
    """A figure of the demo before and after the training: a share from 0 to 1, or a margin."""

    what: str
    before: float
    after: float


class Trained(TypedDict):
    """A training of the demo: its figures, and the job as it ended."""

    changes: list[Change]
    job: wire.Job


class Demo(TypedDict):
    """The demo's figures, how long it all took, and the job as it ended; with --all also the trainings ``after`` it."""

    changes: list[Change]
    seconds: float
    job: wire.Job
    after: list[Trained]


class PreviewToken(TypedDict):
    """A token: its id, the text that it adds, and whether it is trained on."""

    id: int
    text: str
    trained: bool


class TokenRow(TypedDict, total=False):
    """A row as tokens: how many there are (``length``), are ``cut`` off, ``trained`` on, and ``hidden`` here.

    A row that cannot be read has ``row`` and ``problem`` alone.
    """

    row: int
    length: int
    cut: int
    trained: int
    hidden: int
    tokens: list[PreviewToken]
    problem: str


class TokenPreview(TypedDict):
    """The first rows of a dataset as the audit ``job`` read them for a model."""

    job: str
    dataset: str
    sha256: str | None
    model: str
    format: str
    max_length: int
    rows: list[TokenRow]


class Script(TypedDict):
    """A completion script."""

    shell: Literal["bash", "zsh", "fish"]
    script: str


class Setting(TypedDict):
    """A value of the configuration and where it comes from: ``default``, a file with its line, a variable."""

    key: str
    value: Json
    source: str


class Problem(TypedDict):
    """What is wrong in a configuration, in a sentence that names file, line and key."""

    param: str | None
    message: str


class ConfigCheck(TypedDict):
    """Whether a configuration can be used. ``file`` is null if there is none."""

    ok: bool
    file: str | None
    problems: list[Problem]


class Plugin(TypedDict):
    """A plugin and what became of it. ``status`` is ``loaded``, ``blocked`` or ``broken``; ``reason`` says why."""

    name: str
    module: str
    status: str
    reason: str | None


class NewPlugin(TypedDict):
    """A plugin that was written: its name is that of its kind of job too; ``files`` are paths in ``directory``."""

    name: str
    distribution: str
    package: str
    directory: str
    files: list[str]


class Check(TypedDict):
    """One check of the doctor's. ``verdict`` is ``ok``, ``warn`` or ``fail``; ``remedy`` is null where none is needed."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    message: str
    remedy: str | None


class InBackup(TypedDict):
    """A model, dataset, checkpoint or archive that the log names. ``sha256`` is a dataset's or archive's own, of a model or checkpoint that of
    its manifest. ``reason`` says why it is not included; null if it is.
    """

    what: str
    name: str
    path: str
    bytes: int
    sha256: str | None
    included: bool
    reason: str | None


class BackupMade(TypedDict):
    """A backup: the log's ``head`` in it, how many ``files`` and ``bytes`` it has, and what the log names beside it."""

    path: str
    made_at: str
    head: wire.Anchor
    files: int
    bytes: int
    listed: list[InBackup]


class Restored(BackupMade):
    """What was put back, and where. ``former_log`` is where the log of before lies now, null if there was none;
    ``state_dir`` is null if the backup was only checked.
    """

    state_dir: str | None
    former_log: str | None


class Diagnosis(TypedDict):
    """Every check. ``ok`` is false if one of them failed; warnings do not count."""

    ok: bool
    checks: list[Check]


class Engine(TypedDict):
    """A line of ``finetune engines ls``."""

    name: str
    default: bool
    python: str | None
    own_environment: bool
    endpoints: list[str]


class InstalledEngine(TypedDict):
    """What ``finetune engines install`` made."""

    name: str
    python: str
