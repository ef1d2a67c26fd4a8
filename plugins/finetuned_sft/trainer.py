"""Supervised fine-tuning: the work of an ``sft`` job, top to bottom.

Runs in a worker process. ``train`` loads the tokenizer, the rows and the model, hands them to TRL's
``SFTTrainer``, and publishes what comes out. Rows are tokenized by the same code that validated them.
"""

from __future__ import annotations

from pathlib import Path

import datasets
import trl

from finetuned_sdk import WorkerContext, phases
from finetuned_sft import tokenization
from finetuned_sft.params import SFTParams
from finetuned_sft.prepared import prepare
from finetuned_sft.validation import detect_format
from finetuned_training import arguments, batch_shape, chat, checks, publishing, splits
from finetuned_training.dataset import telling
from finetuned_training.metering import MeteredTrainer, StepMeter
from finetuned_training.model import load_adapter, load_model, load_tokenizer, lora_config, settled
from finetuned_training.model_card import Method
from finetuned_training.reporting import callbacks_of
from finetuned_training.settings import Resolved, intervals, total_steps

HOW = Method("supervised fine-tuning", "sft")


def train(ctx: WorkerContext, params: SFTParams) -> None:
    """Train, publish and register a model. Returns early, with nothing published, when asked to stop."""
    checks.refuse_remote_code(ctx, params)
    of_job = ctx.load_callbacks()  # before all that takes long, so that what is wrong with them shows at once
    settings, gpu = settled(ctx, params)
    base = ctx.model_path("model")
    datasets.disable_progress_bars()

    ################
    # Dataset
    ################
    tokenizer = load_tokenizer(base, params)

    def load(param: str, split: str) -> datasets.Dataset:
        return load_rows(ctx, param, split, params, tokenizer)

    data = splits.read(ctx, params, load)

    ################
    # Model
    ################
    ctx.phase(phases.LOADING_MODEL)
    model = load_model(base, params, settings, gpu=gpu)
    peft_config = None
    if params.adapter is not None:
        model = load_adapter(model, ctx.model_path("adapter"))
    elif params.method != "full":
        peft_config = lora_config(settings, params)

    ################
    # Training
    ################
    meter = StepMeter()
    callbacks = callbacks_of(ctx, params, settings, meter, data.hashes, of_job)

    trainer = MeteredSFTTrainer(
        ctx,
        meter,
        model=model,
        args=sft_config(ctx.work_dir, ctx.job_id, params, settings, gpu=gpu),
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
        sorts=params.sort_within_step,
    )
    batch_shape.settle(ctx, params, trainer)
    if params.tune_only:
        return
    steps = total_steps(params, len(trainer.train_dataset))
    eval_steps, trainer.args.save_steps = intervals(params, settings, steps)
    trainer.args.eval_steps = eval_steps if params.evaluates else None

    trainer.run(ctx.resume_from, steps)
    if ctx.stop_requested is not None:
        return

    publishing.publish(
        ctx, params, trainer, how=HOW, rows=len(data.train), dataset_sha256=data.hashes[params.dataset]
    )
    for file in ctx.work_dir.glob("*.arrow"):
        file.unlink(missing_ok=True)


class MeteredSFTTrainer(MeteredTrainer, trl.SFTTrainer):
    """TRL's trainer, watched over."""


def load_rows(
    ctx: WorkerContext, param: str, split: str, params: SFTParams, tokenizer: chat.Tokenizer
) -> datasets.Dataset:
    """The tokenized and masked rows that ``param`` names, in a file of the work directory."""
    path = ctx.dataset_path(param)
    form = params.dataset_format or detect_format(path, split)
    rule = tokenization.loss_rule(params, form, tokenizer)
    rows = telling(ctx.advancing, tokenization.tokenized_rows(path, split, rule, tokenizer))
    return prepare(rows, ctx.work_dir / f"{param}.arrow", source=path, max_length=params.max_length)


def sft_config(
    output_dir: Path, run_name: str, params: SFTParams, settings: Resolved, *, gpu: bool
) -> trl.SFTConfig:
    """TRL's configuration. What is not set here is TRL's default."""
    return trl.SFTConfig(
        **arguments.of_training(output_dir, run_name, params, settings, gpu=gpu),
        # Rows are tokenized, masked and cut already; only packing is left to TRL.
        max_length=params.max_length,
        packing=params.packing,
        dataset_kwargs=None if params.packing else {"skip_prepare_dataset": True},
        neftune_noise_alpha=params.neftune_noise_alpha,
    )
