"""``POST /v1/fine_tuning/jobs``: what a request may say. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from finetuned.job_request import PRIORITY_LIMIT
from finetuned.json_numbers import Integer
from finetuned.openai.hyperparameters import AUTO, METHODS, Method

Json = Any

SUFFIX: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
#: trackers that take a project and a run's name, by the callback ``tracker``; the others are in ``report_to``
WITH_PROJECT: Final = ("wandb", "mlflow", "tensorboard", "trackio")


def _auto(value: Any) -> Any:
    return None if value == AUTO else value


def _or_auto(kind: str, **limits: float) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": AUTO}, {"type": kind, **limits}]})


#: ``None`` is auto
Epochs = Annotated[
    Annotated[Integer, Field(ge=1, le=50)] | None,
    BeforeValidator(_auto),
    _or_auto("integer", minimum=1, maximum=50),
]
BatchSize = Annotated[
    Annotated[Integer, Field(ge=1, le=256)] | None,
    BeforeValidator(_auto),
    _or_auto("integer", minimum=1, maximum=256),
]
Multiplier = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    BeforeValidator(_auto),
    _or_auto("number", exclusiveMinimum=0),
]
PreferenceBeta = Annotated[
    Annotated[float, Field(gt=0, le=2)] | None,
    BeforeValidator(_auto),
    _or_auto("number", exclusiveMinimum=0, maximum=2),
]
DivergenceBeta = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None,
    BeforeValidator(_auto),
    _or_auto("number", minimum=0, maximum=1),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Hyperparameters(_Strict):
    """Of supervised fine-tuning."""

    n_epochs: Epochs = Field(default=None, description="passes over the rows")
    batch_size: BatchSize = Field(default=None, description="rows an optimizer step")
    learning_rate_multiplier: Multiplier = Field(
        default=None, description="times the learning rate that the trainer recommends"
    )


class PreferenceHyperparameters(Hyperparameters):
    """Of DPO."""

    beta: PreferenceBeta = Field(default=None, description="how dear it is to leave the reference model")


class DistillationHyperparameters(Hyperparameters):
    """Of on-policy distillation."""

    beta: DivergenceBeta = Field(
        default=None, description="1 is the reverse KL divergence, 0 the forward one"
    )


class Supervised(_Strict):
    """``method.supervised``."""

    hyperparameters: Hyperparameters | None = None


class Preference(_Strict):
    """``method.dpo``."""

    hyperparameters: PreferenceHyperparameters | None = None


class Distillation(_Strict):
    """``method.distillation``: ours, not OpenAI's."""

    teacher: str | None = Field(
        default=None,
        min_length=1,
        description="a model as `model` names one, or the URL of a server that gives prompt log-probabilities",
    )
    hyperparameters: DistillationHyperparameters | None = None


class MethodRequest(_Strict):
    """How to train."""

    type: Literal["supervised", "dpo", "distillation"]
    supervised: Supervised | None = None
    dpo: Preference | None = None
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        for name in METHODS:
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"{name} does not belong to type {self.type}; drop one of them")
        return self


class TrackerSettings(_Strict):
    """Where a tracker shows the run."""

    project: str | None = Field(default=None, min_length=1, max_length=200)
    name: str | None = Field(default=None, min_length=1, max_length=200)


class WandbSettings(TrackerSettings):
    """Where Weights & Biases shows the run."""

    entity: str | None = Field(default=None, min_length=1, max_length=200)
    tags: list[Annotated[str, Field(min_length=1, max_length=64, pattern="^[^,]+$")]] | None = Field(
        default=None, max_length=50
    )


class Integration(_Strict):
    """A tracker that is told of the training."""

    type: Literal["wandb", "mlflow", "tensorboard", "trackio", "clearml", "comet_ml", "swanlab"]
    wandb: WandbSettings | None = None
    mlflow: TrackerSettings | None = None
    tensorboard: TrackerSettings | None = None
    trackio: TrackerSettings | None = None

    @model_validator(mode="after")
    def _own_settings(self) -> Self:
        for name in WITH_PROJECT:
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"{name} does not belong to type {self.type}; drop one of them")
        return self


class Extension(_Strict):
    """What OpenAI's request has no place for."""

    params: dict[str, Json] = Field(
        default_factory=dict, description="further parameters of the kind that the method is"
    )
    priority: Integer = Field(
        default=0, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT, description="higher goes first"
    )
    secrets: dict[str, str] = Field(
        default_factory=dict, max_length=20, description="secrets that the job may use, by reference"
    )


class FineTuningRequest(_Strict):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model: str = Field(
        min_length=1,
        max_length=4096,
        description="what to train: a registered model, an alias, an `ft:` name (training goes on from that adapter), a"
        " hub id or a directory",
    )
    training_file: str = Field(
        max_length=4096, description="the id of a file with the purpose `fine-tune`, or `dataset:NAME`"
    )
    validation_file: str | None = Field(default=None, max_length=4096, description="held-out rows, likewise")
    suffix: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=SUFFIX,
        description="what stands in the model's `ft:` name",
    )
    seed: Integer | None = Field(
        default=None, ge=0, le=2**31 - 1, description="of weights, order and dropout; null is 42"
    )
    method: MethodRequest | None = Field(
        default=None, description="`supervised` (if nothing is said), `dpo` or `distillation`"
    )
    hyperparameters: Hyperparameters | None = Field(
        default=None,
        description="those of `method.supervised`, where older clients put them",
        json_schema_extra={"deprecated": True},
    )
    integrations: list[Integration] | None = Field(
        default=None, max_length=5, description="trackers, as `report_to` of the trainers names them"
    )
    metadata: (
        dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] | None
    ) = Field(default=None, max_length=16, description="your own keys; the daemon only keeps them")
    x_finetuned: Extension | None = Field(
        default=None, description="what OpenAI's request has no place for: `params`, `priority` and `secrets`"
    )

    @property
    def trains(self) -> Method:
        """The method that is asked for."""
        return METHODS["supervised" if self.method is None else self.method.type]
