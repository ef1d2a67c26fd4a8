"""The parameters of a DPO job beside those of every training, named as TRL names them."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetuned_dpo.row_bytes import longer_sequence
from finetuned_training.params import Ratio, TrainingParams

FormatName = Literal["preference", "implicit_prompt", "openai"]
LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
#: the losses that have a generalisation to other f-divergences than the reverse KL (arXiv 2309.16240)
F_DIVERGENCE_LOSSES = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
)
SMOOTHED_LOSSES = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})


class DPOParams(TrainingParams):
    """What a DPO job can be told. Batch sizes are pairs, lengths are tokens, steps are optimizer steps."""

    sequences_a_row: ClassVar[int] = 2
    knows_auto: ClassVar[bool] = True
    learning_rates: ClassVar[tuple[float, float]] = (1e-6, 1e-5)

    # Parameters that differ from other trainings'
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate. null: 1e-5 for lora and qlora, 1e-6 for full.",
    )
    num_train_epochs: float = Field(default=1.0, gt=0, le=10_000, description="Passes over the data.")
    lora_dropout: Ratio | None = Field(
        default=0.0, description="Always 0: DPO compares models, so TRL trains without dropout."
    )

    # Parameters that control the data preprocessing
    dataset_format: FormatName | None = Field(
        default=None, description="The form of the pairs. null: detected from the first row's keys."
    )

    # Parameters that control the loss
    beta: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="How dear it is to leave the reference model (of ipo: its regularisation, tau). Higher is closer.",
    )
    loss_type: list[LossType] = Field(
        default=["sigmoid"],
        min_length=1,
        description="The loss, or several that are added. sigmoid is DPO's own (arXiv 2305.18290).",
    )
    loss_weights: list[float] | None = Field(
        default=None, description="The weight of each loss. null: 1 each."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="The share of pairs that are taken to be the wrong way round; for robust, exo_pair, aot and "
        "aot_unpaired. exo_pair needs more than 0.",
    )
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = Field(
        default="reverse_kl", description="What keeps the model by the reference (f-DPO, arXiv 2309.16240)."
    )
    ld_alpha: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Weight of the tokens by which the longer answer is longer (LD-DPO, arXiv 2409.06411). null: 1.",
    )
    reference_cache: bool = Field(
        default=True,
        description="Score all pairs with the reference model before the training, once for all runs with these pairs "
        "and this model. false: at every step, without the cache's disk and wait at the start.",
    )

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        losses = set(self.loss_type)
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError("loss_weights needs one weight for each loss_type")
        if "exo_pair" in losses and not self.label_smoothing:
            raise ValueError("exo_pair needs label_smoothing above 0; its paper takes 0.001")
        if self.label_smoothing and not losses & SMOOTHED_LOSSES:
            raise ValueError(f"label_smoothing applies to {', '.join(sorted(SMOOTHED_LOSSES))} only; drop it")
        if self.f_divergence_type != "reverse_kl" and not losses <= F_DIVERGENCE_LOSSES:
            known = ", ".join(sorted(F_DIVERGENCE_LOSSES))
            raise ValueError(f"f_divergence_type applies to {known} only; drop it")
        return self

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.lora_dropout:
            raise ValueError(
                "lora_dropout does not apply: DPO compares models, so TRL trains without dropout; drop it"
            )
        return self

    @staticmethod
    def row_bytes(line: bytes) -> int:
        """Both answers are in a line, and one is in a sequence."""
        return longer_sequence(line)

    @property
    def keeps_reference(self) -> bool:
        return not self.reference_cache
