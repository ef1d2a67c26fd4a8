"""The parameters of an SFT job beside those of every training, named as TRL names them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetuned_training.params import TrainingParams
from finetuned_training.supervised_rows import FormatName


class SFTParams(TrainingParams):
    """What an SFT job can be told. Batch sizes are rows, lengths are tokens, steps are optimizer steps."""

    knows_auto: ClassVar[bool] = True

    # Parameters that control the data preprocessing
    dataset_format: FormatName | None = Field(
        default=None, description="The form of the rows. null: detected from the first row's keys."
    )
    packing: bool = Field(
        default=False,
        description="Fill sequences of max_length with several rows each: faster for short rows. The attention "
        "of a row does not reach into its neighbours.",
    )
    assistant_only_loss: bool = Field(
        default=True,
        description="messages and sharegpt rows: learn from the assistant's turns only. false: from every token.",
    )
    completion_only_loss: bool = Field(
        default=True,
        description="prompt_completion and alpaca rows: learn from the completion only. false: from every token.",
    )
    apply_chat_template: bool | None = Field(
        default=None,
        description="Make a user turn of a plain-string prompt and an assistant turn of its completion, with the "
        "model's chat template. null: for alpaca rows if the model has a template; strings of prompt_completion "
        "rows are trained as they stand, as TRL does.",
    )

    # Parameters that control the training
    neftune_noise_alpha: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Noise on the embeddings (NEFTune, arXiv 2310.05914); 5 is usual.",
    )

    @property
    def packs(self) -> bool:
        return self.packing


class SFTAuditParams(SFTParams):
    """What an audit can be told: all that the training can, so that the same parameters audit what they would train."""

    preview_rows: int = Field(
        default=20, ge=0, le=200, description="Show so many of the first rows as tokens, with the loss mask."
    )
