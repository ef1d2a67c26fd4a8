"""Fine-tuning as OpenAI's clients read it. Times are Unix seconds."""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

Json = Any
Item = TypeVar("Item")

FineTuningStatus = Literal[
    "validating_files", "queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled"
]


class FineTuningError(TypedDict):
    """Why a fine-tuning job failed. ``param`` is the parameter that was wrong, if it was one."""

    code: str
    message: str
    param: str | None


class FineTuningHyperparameters(TypedDict):
    """What is trained with; ``beta`` where the method has one."""

    n_epochs: float
    batch_size: int
    learning_rate_multiplier: float
    beta: NotRequired[float]


class FineTuningMethod(TypedDict):
    """The method, and under its name its hyperparameters; of a distillation also the teacher."""

    type: Literal["supervised", "dpo", "distillation"]
    supervised: NotRequired[dict[str, Json]]
    dpo: NotRequired[dict[str, Json]]
    distillation: NotRequired[dict[str, Json]]


class FineTuningProgress(TypedDict):
    """What OpenAI's object has no place for. ``job`` and ``state`` are those of ``GET /v1/jobs/{job_id}``."""

    job: str
    state: str
    phase: str | None
    priority: int
    attempt: int
    max_attempts: int
    wait_reason: str | None
    queue_position: int | None
    pause_reason: str | None
    cancel_reason: str | None
    progress: dict[str, Json] | None


class FineTuningJob(TypedDict):
    """A job of the kind sft, dpo or opd."""

    id: str
    object: Literal["fine_tuning.job"]
    model: str
    created_at: int
    finished_at: int | None
    fine_tuned_model: str | None
    organization_id: str
    result_files: list[str]
    status: FineTuningStatus
    training_file: str
    validation_file: str | None
    trained_tokens: int | None
    hyperparameters: FineTuningHyperparameters | None
    method: FineTuningMethod
    error: FineTuningError | None
    seed: int
    estimated_finish: int | None
    integrations: list[dict[str, Json]]
    metadata: dict[str, str]
    user_provided_suffix: str | None
    usage_metrics: None
    shared_with_openai: Literal[False]
    x_finetuned: FineTuningProgress


class FineTuningEvent(TypedDict):
    """Something that happened to a job: in words, of type ``metrics`` also in numbers."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Json]


class FineTuningMetrics(TypedDict):
    """Figures at a step; those that nobody measured are left out."""

    step: int
    train_loss: NotRequired[float]
    train_mean_token_accuracy: NotRequired[float]
    valid_loss: NotRequired[float]
    valid_mean_token_accuracy: NotRequired[float]
    full_valid_loss: NotRequired[float]
    full_valid_mean_token_accuracy: NotRequired[float]


class FineTuningCheckpoint(TypedDict):
    """A checkpoint of a job that is kept."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: FineTuningMetrics
    step_number: int


class FineTuningPage(TypedDict, Generic[Item]):
    """A page of jobs or events, newest first. The last item's id is the next page's ``after``."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool


class FineTuningCheckpointPage(TypedDict):
    """A page of checkpoints, newest first."""

    object: Literal["list"]
    data: list[FineTuningCheckpoint]
    has_more: bool
    first_id: str | None
    last_id: str | None
