"""The parameters of an on-policy distillation beside those of every training, named as TRL names them where it has them."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetuned_opd.prompts import FormatName
from finetuned_training.params import Ratio, TrainingParams

Objective = Literal["divergence", "policy_gradient"]
Estimator = Literal["k1", "k2", "k3"]


class OPDParams(TrainingParams):
    """What a distillation can be told. Batch sizes are prompts, lengths are tokens, steps are optimizer steps."""

    learning_rates: ClassVar[tuple[float, float]] = (2e-5, 1e-4)

    # Parameters that differ from other trainings'
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate. null: 1e-4 for lora and qlora, 2e-5 for full.",
    )
    num_train_epochs: float = Field(default=1.0, gt=0, le=10_000, description="Passes over the prompts.")
    max_length: int = Field(
        default=1024,
        ge=8,
        le=1_048_576,
        description="Tokens of a prompt and its completion together. Prompts that leave no room for "
        "max_completion_length are left out.",
    )

    lora_dropout: Ratio | None = Field(
        default=0.0, description="Dropout before the adapters while training; what is compared is without it."
    )

    # Parameters that name the teacher: one of the four
    teacher: str | None = Field(
        default=None,
        min_length=1,
        description="A model with the student's vocabulary: a directory, a registered model's name or a hub id.",
    )
    teacher_adapter: str | None = Field(
        default=None,
        min_length=1,
        description="A LoRA adapter that the teacher is taken with: a directory or a registered model's name.",
    )
    teacher_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="The base URL of an OpenAI-compatible server that gives prompt log-probabilities (vLLM): "
        "http://127.0.0.1:8000/v1.",
    )
    self_distillation: bool = Field(
        default=False,
        description="The teacher is the student without its adapter: what an adapter has unlearned comes back.",
    )
    precomputed_scores: bool = Field(
        default=False,
        description="The rows bring the teacher's scores of their completions (scored rows); nothing is sampled.",
    )
    teacher_model: str | None = Field(
        default=None,
        min_length=1,
        description="What the endpoint calls the model. null: the only one that it serves.",
    )
    teacher_api_key: str | None = Field(
        default=None, min_length=1, description="The name of the job's secret with the endpoint's key."
    )
    teacher_revision: str | None = Field(
        default=None,
        min_length=1,
        description="Your word for the weights behind the endpoint's name: with it the scores are kept in the cache, "
        "since nobody else can tell whether they are still the same.",
    )
    teacher_timeout_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="How long an endpoint that does not answer is tried again before the job pauses, in seconds.",
    )
    teacher_in_4bit: bool = Field(default=False, description="Load the teacher in 4 bits (NF4).")
    teacher_cache_gb: float = Field(
        default=4.0,
        ge=0,
        le=100_000,
        description="Disk for the teacher's scores, which all runs share and a resume finds again, in GB. 0: none.",
    )

    # Parameters that control the data preprocessing
    dataset_format: FormatName | None = Field(
        default=None, description="The form of the rows. null: detected from the first row's keys."
    )
    apply_chat_template: bool | None = Field(
        default=None,
        description="Make a user turn of a plain-string prompt. null: for alpaca rows if the model has a template; "
        "other strings are completed as they stand.",
    )

    # Parameters that control the sampling
    max_completion_length: int = Field(
        default=256, ge=1, le=1_048_576, description="Tokens that the student may answer with."
    )
    prefix_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Learn from the first so many tokens of a completion alone, and sample no more: they teach the "
        "most (arXiv 2606.22600). null: from all.",
    )
    sampling_temperature: float = Field(
        default=1.0, gt=0, le=10, description="What the student's logits are divided by when it samples."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Sample from the likeliest tokens that have so much of the mass."
    )
    lmbda: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the rows that the student answers itself; the others bring the answer of their row.",
    )

    # Parameters that control the loss
    objective: Objective = Field(
        default="divergence",
        description="divergence: how far the student's distribution is from the teacher's, at every token of a "
        "completion. policy_gradient: the log-ratio of the sampled token as its advantage.",
    )
    beta: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="The generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649): 1 is the reverse KL, 0 the "
        "forward KL.",
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Compare the teacher's likeliest tokens alone, all others as one. null: the whole vocabulary; "
        "20 of an endpoint's.",
    )
    tail: bool = Field(
        default=True, description="With top_k: count the mass of all other tokens as one more token."
    )
    estimator: Estimator | None = Field(
        default=None,
        description="Estimate the reverse KL by the sampled token alone (k2, k3: Schulman, 2020), which is all that "
        "is asked of the teacher then. null: no estimate.",
    )
    temperature: float = Field(
        default=1.0, gt=0, le=100, description="What both models' logits are divided by in the divergence."
    )
    kl_weight: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="w of w · divergence + (1 - w) · cross-entropy, the latter on the row's answer if it has one, "
        "else on the teacher's likeliest token.",
    )

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        given = [
            self.teacher is not None,
            self.teacher_endpoint is not None,
            self.self_distillation,
            self.precomputed_scores,
        ]
        if sum(given) != 1:
            raise ValueError(
                "name one teacher: teacher (a model), teacher_endpoint (a URL), self_distillation or "
                "precomputed_scores"
            )
        if self.teacher_endpoint is None:
            self._refuse_set(
                "it belongs to teacher_endpoint", "teacher_model", "teacher_api_key", "teacher_revision"
            )
        if self.self_distillation and self.method == "full":
            raise ValueError(
                "self_distillation switches the adapter off, and method full has none; use lora, or name the "
                "model as the teacher"
            )
        if self.teacher is None:
            self._refuse_set("it belongs to teacher", "teacher_in_4bit", "teacher_adapter")
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        if self.top_k is not None and not self.tail and self.beta > 0:
            raise ValueError(
                "without the tail the student lowers a reverse KL over top_k tokens by moving its mass to others; "
                "set tail=true, or beta=0 (forward KL)"
            )
        if self.top_k is None and not self.tail:
            raise ValueError("tail belongs to top_k; drop it")
        if self.compared_tokens is not None and self.temperature != 1:
            raise ValueError(
                "temperature needs the whole vocabulary: drop it, or drop top_k and take a model as teacher"
            )
        if self.objective == "policy_gradient":
            self._policy_gradient_fits()
        elif self.estimator is not None:
            self._estimator_fits(self.estimator)
        return self

    def _policy_gradient_fits(self) -> None:
        self._samples_are_the_students()
        reason = "the policy gradient needs the sampled token alone"
        self._refuse_set(reason, "top_k")
        if self.beta != 1 or self.temperature != 1:
            raise ValueError("the policy gradient is that of the reverse KL: drop beta and temperature")
        if self.top_p < 1 or self.sampling_temperature != 1:
            raise ValueError(
                "the policy gradient needs samples of the student's own distribution, or its importance weights "
                "are wrong: drop top_p and sampling_temperature"
            )
        if self.estimator not in (None, "k1"):
            raise ValueError(
                "the policy gradient's advantage is k1; drop estimator, or use objective=divergence"
            )

    def _samples_are_the_students(self) -> None:
        if self.lmbda < 1 and not self.precomputed_scores:
            raise ValueError(
                "what is estimated by the sampled token needs the student's own samples: drop lmbda, or use "
                "objective=divergence without estimator"
            )

    def _estimator_fits(self, estimator: Estimator) -> None:
        if estimator == "k1":
            raise ValueError(
                "the gradient of k1 has nothing of the teacher in it: use it as an advantage "
                "(objective=policy_gradient), or k2 or k3 as a loss"
            )
        self._samples_are_the_students()
        self._refuse_set("estimator needs the sampled token alone", "top_k")
        if self.beta != 1 or self.temperature != 1:
            raise ValueError("k2 and k3 estimate the reverse KL: drop beta and temperature")
        if self.top_p < 1 or self.sampling_temperature != 1:
            raise ValueError(
                "k2 and k3 need samples of the student's own distribution: drop top_p and sampling_temperature"
            )

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        if self.finds_batch:
            raise ValueError(
                "auto is for sft and dpo: what fits here depends on what the student answers; give "
                "per_device_train_batch_size as a number"
            )
        if self.sort_within_step:
            raise ValueError("the rows of a step are always dealt out by length; drop sort_within_step")
        if self.precomputed_scores:
            if "lmbda" in self.model_fields_set and self.lmbda > 0:
                raise ValueError("precomputed scores are of the rows' completions: set lmbda=0, or drop it")
            self.lmbda = 0.0
            if self.evaluates:
                raise ValueError(
                    "held-out prompts need a teacher to score what the student answers: drop eval_dataset and "
                    "eval_split, or name a teacher"
                )
        if self.max_completion_length >= self.max_length:
            raise ValueError("max_length has to leave room for a prompt beside max_completion_length")
        return self

    @property
    def loss_ratio_kept(self) -> float | None:
        return self.max_loss_ratio if self.objective == "divergence" else None

    @property
    def new_tokens(self) -> int:
        """Tokens that are sampled at most."""
        return min(self.max_completion_length, self.prefix_tokens or self.max_completion_length)

    @property
    def samples_token_alone(self) -> bool:
        """Whether the loss asks no more of the teacher than the log-probability of each token."""
        return self.objective == "policy_gradient" or self.estimator is not None

    @property
    def compared_tokens(self) -> int | None:
        """How many of the teacher's likeliest tokens are compared; ``None`` for the whole vocabulary."""
        if self.samples_token_alone:
            return None
        if self.top_k is None and (self.teacher_endpoint is not None or self.precomputed_scores):
            return ENDPOINT_TOP_K
        return self.top_k

    @property
    def compares_all(self) -> bool:
        """Whether the whole vocabulary of student and teacher is compared."""
        return not self.samples_token_alone and self.compared_tokens is None


ENDPOINT_TOP_K = 20  # what vLLM gives at most unless it is told otherwise (max_logprobs)
