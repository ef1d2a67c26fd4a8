"""Parameters of the callbacks. No torch here: the daemon reads this module."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Metric = Literal["auto", "exact_match", "json_fields"]
Moment = Literal["start", "end"]
TrackerName = Literal["wandb", "mlflow", "tensorboard", "trackio"]


class ValidationParams(BaseModel):
    """What ``validation`` asks the model, how often, and how the answers are scored."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        min_length=1,
        description='JSONL file (or dataset:NAME) of held-out rows: {"prompt", "completion"} (strings or messages) or {"messages"} '
        "with the answer as the last message.",
    )
    metric: Metric = Field(
        default="auto",
        description="exact_match: the answer is the expected text; json_fields: also the share of its fields that "
        "are right. auto: json_fields if every expected answer is a JSON object.",
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="Tokens an answer may have.")
    batch_size: int = Field(default=16, ge=1, le=1024, description="Rows that are answered together.")
    limit: int | None = Field(
        default=None, ge=1, description="Ask only the first so many rows. null: all of them."
    )
    at: list[Moment] = Field(
        default=["start", "end"],
        description="Moments at which to validate: start (before the first step), end (after the last).",
    )
    every_steps: int | None = Field(default=None, ge=1, description="Validate also every so many steps.")
    every_evals: int | None = Field(
        default=None,
        ge=1,
        description="Validate also at every so many evaluations of the loss; its metrics join them as "
        "eval_exact_match and so on.",
    )
    samples: int | None = Field(
        default=None, ge=0, description="Keep so many answers of each validation as an artifact. null: all."
    )
    apply_chat_template: bool = Field(
        default=False,
        description="Make a user turn of a plain-string prompt, as the trainer's parameter of that name does.",
    )


class TrackerParams(BaseModel):
    """Which experiment tracker to report to, through transformers' own integration."""

    model_config = ConfigDict(extra="forbid")

    report_to: TrackerName = Field(description="wandb, mlflow, tensorboard or trackio.")
    project: str | None = Field(
        default=None, min_length=1, description="Project or experiment. null: the tracker's default."
    )
    run_name: str | None = Field(
        default=None, min_length=1, description="Name of the run. null: the job's name or id."
    )
    tracking_uri: str | None = Field(
        default=None, min_length=1, description="MLflow's server or directory. null: MLflow's default."
    )
    entity: str | None = Field(
        default=None, min_length=1, description="wandb: the user or team. null: the key's own."
    )
    tags: list[Annotated[str, Field(min_length=1, max_length=64, pattern="^[^,]+$")]] = Field(
        default_factory=list, max_length=50, description="wandb: labels of the run, without commas."
    )

    @model_validator(mode="after")
    def _of_wandb(self) -> Self:
        if self.report_to != "wandb" and (self.entity is not None or self.tags):
            raise ValueError(
                f"entity and tags are wandb's; drop them, or report to it and not to {self.report_to}"
            )
        return self


class CheckpointParams(BaseModel):
    """Which checkpoints to keep: the best by a metric, the newest, or both."""

    model_config = ConfigDict(extra="forbid")

    best: int = Field(default=0, ge=0, le=1000, description="Keep so many with the best metric.")
    last: int = Field(default=1, ge=0, le=1000, description="Keep so many of the newest.")
    metric: str = Field(
        default="eval_loss", min_length=1, description="The metric that best is judged by: eval_loss, …"
    )
    greater_is_better: bool | None = Field(
        default=None, description="Whether more is better. null: no for a loss or perplexity, else yes."
    )

    @model_validator(mode="after")
    def _keep_something(self) -> Self:
        if not self.best and not self.last:
            raise ValueError("best and last are both 0, which keeps no checkpoint: set one of them")
        return self
