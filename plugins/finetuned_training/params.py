"""The parameters that every training takes, named as TRL and peft name them.

A field whose default is ``None`` is filled in by :func:`finetuned_training.settings.resolve`, because the value that the
field recommends depends on the method (LoRA wants about ten times the learning rate of full tuning) or on the device.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["full", "lora", "qlora"]
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "adafactor",
    "lion_32bit",
    "lion_8bit",
    "sgd",
]
Ratio = Annotated[float, Field(ge=0, lt=1)]
ROWS_A_PASS = 4  # if nothing is said


class CallbackRequest(BaseModel):
    """One callback that the job lists; ``finetune kinds`` shows the names and their parameters."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="The callback's registered name.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its parameters.")


class TrainingParams(BaseModel):
    """What any training can be told. Batch sizes are rows, lengths are tokens, steps are optimizer steps."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    sequences_a_row: ClassVar[int] = 1  # that a row is made into
    knows_auto: ClassVar[bool] = False  # whether the trainer calls batch_shape.settle
    learning_rates: ClassVar[tuple[float, float]] = (
        2e-5,
        2e-4,
    )  # of full tuning and of adapters, if none is given

    # Parameters that name the model and the data
    model: str = Field(
        min_length=1, description="The base model: a local directory, a registered model's name or a hub id."
    )
    adapter: str | None = Field(
        default=None,
        description="An earlier LoRA adapter to go on training from: a directory or a registered model's name. "
        "Its rank, alpha and target modules are kept; lora_* parameters are then refused.",
    )
    dataset: str = Field(
        min_length=1,
        description="Training rows: a .jsonl, .json, .csv or .parquet file, a folder of those, a hub id, or "
        "dataset:NAME for a dataset of the daemon (dataset:NAME@HASH for one version of it).",
    )
    dataset_split: str = Field(
        default="train",
        min_length=1,
        description="The split to read of a hub dataset; in a folder, files whose names begin with it are "
        "preferred if there are any.",
    )
    eval_dataset: str | None = Field(
        default=None,
        description="Held-out rows, in any form that dataset takes (of a hub id the split test). Evaluated every "
        "eval_steps.",
    )
    eval_split: Ratio = Field(
        default=0.0,
        description="Share of the training rows to hold out for evaluation, 0 to 1; drawn by the seed. "
        "Not together with eval_dataset.",
    )
    callbacks: list[CallbackRequest] = Field(
        default_factory=list, description="Callback plugins to run beside the training, in order."
    )
    output_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=96,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The name under which the result is registered. null: the base model's name and the job id.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that the model's repository ships. Only where the operator allows it.",
    )

    # Parameters that control what is trained
    method: Method = Field(
        default="lora",
        description="full: every weight; lora: low-rank adapters on a frozen model; qlora: the same on a model "
        "loaded in 4 bits (NF4).",
    )
    lora_r: int | None = Field(default=None, ge=1, le=1024, description="Rank of the adapters. null: 16.")
    lora_alpha: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Scale of the adapters; they are multiplied by alpha / r. null: 2 r.",
    )
    lora_dropout: Ratio | None = Field(
        default=None, description="Dropout before the adapters while training. null: 0.05."
    )
    lora_target_modules: Annotated[str | list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="Modules that get an adapter, by name ending. null: 'all-linear', every linear layer but "
        "the head.",
    )
    use_rslora: bool = Field(
        default=False, description="Scale by alpha / sqrt(r) (rank-stabilised LoRA), for high ranks."
    )
    merge_adapter: bool = Field(
        default=False,
        description="Also publish the base model with the adapter merged in, in the base's type.",
    )

    # Parameters that control the data preprocessing
    max_length: int = Field(
        default=1024,
        ge=8,
        le=1_048_576,
        description="Tokens a row may have; what is longer is cut at the end.",
    )
    # Parameters that control the training
    max_steps: int | None = Field(
        default=None, ge=1, description="Stop after this many optimizer steps; overrides num_train_epochs."
    )
    num_train_epochs: float = Field(default=3.0, gt=0, le=10_000, description="Passes over the data.")
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        default=ROWS_A_PASS,
        description="Rows a forward pass. auto: the fastest that fits, found by trial before the first step; "
        "gradient_accumulation_steps then follows it, so that an optimizer step takes the rows that it takes with 4.",
    )
    auto_batch_divisor: int = Field(
        default=1,
        ge=1,
        le=2**31,
        description="Take so many times fewer rows a pass than auto finds. Doubled by the daemon when memory ran out.",
    )
    tune_only: bool = Field(
        default=False,
        description="Find the batch of auto, tell what was tried, and end: nothing is trained. `finetune tune-batch` "
        "sets it.",
    )
    sort_within_step: bool = Field(
        default=False,
        description="Sort the rows of each optimizer step by length before they are split into passes: less padding, "
        "the same rows a step, and the same losses but for rounding and dropout.",
    )
    per_device_eval_batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="Rows a pass in evaluation. null: as in training."
    )
    gradient_accumulation_steps: int = Field(
        default=4, ge=1, le=65_536, description="Passes whose gradients are summed before an optimizer step."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate. null: 2e-4 for lora and qlora, 2e-5 for full.",
    )
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "polynomial",
        "inverse_sqrt",
        "cosine_with_restarts",
    ] = Field(default="cosine", description="How the learning rate falls.")
    warmup_steps: float = Field(
        default=0.03,
        ge=0,
        description="Steps over which the learning rate rises from 0; below 1 it is a share of all steps.",
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this norm.")
    optim: Optimizer | None = Field(
        default=None,
        description="The optimizer. null: adamw_torch_fused; paged_adamw_8bit for qlora on a GPU.",
    )
    max_loss_ratio: float | None = Field(
        default=3.0,
        gt=1,
        le=1000,
        description="Fail as diverged once the loss has stayed, for 20 reports, above so many times its best level and "
        "above the level it began with (a level is the mean of 10 reports). On by default: a run that is there has "
        "unlearned what it knew and only costs time. null: never; NaN always ends the job.",
    )
    seed: int = Field(
        default=42, ge=0, le=2**32 - 1, description="Seed of weights, dropout, order and split."
    )
    bf16: bool | None = Field(
        default=None, description="bfloat16 mixed precision. null: on GPUs that have it; never on CPUs."
    )
    fp16: bool | None = Field(
        default=None, description="float16 mixed precision. null: on GPUs without bfloat16; never on CPUs."
    )
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="Recompute activations in the backward pass: less memory, about 20 % slower. null: on GPUs.",
    )

    # Parameters that control evaluation, saving and logging
    eval_steps: float | None = Field(
        default=None,
        gt=0,
        description="Evaluate every so many steps; below 1 a share of all steps. null: 0.25, or 0.1 with early "
        "stopping.",
    )
    save_steps: float | None = Field(
        default=None,
        gt=0,
        description="Write a checkpoint every so many steps; below 1 a share of all steps. null: ten a run, and "
        "at least every 500 steps. One is always written at the end.",
    )
    save_total_limit: int | None = Field(
        default=None,
        ge=1,
        description="Checkpoints to keep beside the best one. null: 2, unless the checkpoint callback decides.",
    )
    logging_steps: int = Field(default=1, ge=1, description="Report progress every so many steps.")
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many evaluations without a better eval_loss, and go back to the best "
        "checkpoint. Needs eval_dataset or eval_split.",
    )
    load_best_model_at_end: bool | None = Field(
        default=None, description="Publish the best checkpoint, not the last. null: with early stopping."
    )
    report_to: list[str] = Field(
        default_factory=list, description="Trackers of transformers: wandb, mlflow, tensorboard, trackio, …"
    )

    # Parameters that control data loading
    dataloader_num_workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Processes that make batches ahead of the device. null: from the machine's cores, 1 to 4.",
    )
    dataloader_prefetch_factor: int | None = Field(
        default=None, ge=1, le=256, description="Batches that each worker keeps ready. null: 4."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.eval_dataset is not None and self.eval_split > 0:
            raise ValueError("give eval_dataset or eval_split, not both")
        has_eval = self.eval_dataset is not None or self.eval_split > 0
        if (self.early_stopping_patience or self.load_best_model_at_end) and not has_eval:
            raise ValueError(
                "early stopping and the best checkpoint need held-out rows: set eval_dataset or eval_split"
            )
        if self.early_stopping_patience and self.load_best_model_at_end is False:
            raise ValueError(
                "early_stopping_patience goes back to the best checkpoint: drop load_best_model_at_end"
            )
        if self.eval_steps is not None and not has_eval:
            raise ValueError("eval_steps has nothing to evaluate: set eval_dataset or eval_split, or drop it")
        best = self.early_stopping_patience or self.load_best_model_at_end
        if best and self.save_steps is not None and self.save_steps != self.eval_steps:
            raise ValueError(
                "the best checkpoint is saved when it is evaluated: drop save_steps, or set eval_steps to the same"
            )
        modules = self.lora_target_modules
        if isinstance(modules, list) and "lm_head" in modules:
            raise ValueError("lora_target_modules must not have lm_head, which TRL computes apart; drop it")
        if self.bf16 and self.fp16:
            raise ValueError("choose bf16 or fp16, not both")
        if self.finds_batch and not self.knows_auto:
            raise ValueError(
                "this kind finds no batch by itself: give per_device_train_batch_size as a number"
            )
        if self.tune_only and not self.finds_batch:
            raise ValueError(
                "tune_only finds the batch of auto: set per_device_train_batch_size to auto, or drop it"
            )
        if self.method == "full":
            self._refuse_set("method is full", "adapter", "merge_adapter", *_LORA_FIELDS)
        elif self.adapter is not None:
            self._refuse_set("the adapter brings its own", *_LORA_FIELDS)
        return self

    def _refuse_set(self, reason: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) not in (None, False):
                raise ValueError(f"{name} does not apply: {reason}; drop it")

    @property
    def finds_batch(self) -> bool:
        """Whether the trainer finds out by itself how many rows a pass takes."""
        return self.per_device_train_batch_size == "auto"

    @property
    def rows_a_pass(self) -> int:
        """Rows a forward pass, before any were found."""
        given = self.per_device_train_batch_size
        return ROWS_A_PASS if given == "auto" else given

    @property
    def rows_a_step(self) -> int:
        """Rows an optimizer step, however they are split into passes."""
        return self.rows_a_pass * self.gradient_accumulation_steps

    def with_batch(self, rows: int) -> Self:
        """The same training with so many rows a pass; they must divide those of a step."""
        update = {
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": self.rows_a_step // rows,
        }
        return self.model_copy(update=update)

    @staticmethod
    def row_bytes(line: bytes) -> int:
        """How many bytes of a line of a file become one sequence."""
        return len(line)

    @property
    def packs(self) -> bool:
        """Whether sequences hold several rows each."""
        return False

    @property
    def loss_ratio_kept(self) -> float | None:
        """``max_loss_ratio``, if the loss is a measure of how good the model is."""
        return self.max_loss_ratio

    @property
    def keeps_reference(self) -> bool:
        """Whether the model as it began is kept beside the one that is trained."""
        return False

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out rows."""
        return self.eval_dataset is not None or self.eval_split > 0


_LORA_FIELDS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora")
