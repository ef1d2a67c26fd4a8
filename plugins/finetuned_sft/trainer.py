"""Supervised fine-tuning: the work of an ``sft`` job, top to bottom.

Runs in a worker process. ``train`` loads the tokenizer, the rows and the model, hands them to TRL's
``SFTTrainer``, and publishes what comes out. Rows are tokenized by the same code that validated them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import datasets
import torch
import trl

from finetuned_sdk import WorkerContext, phases
from finetuned_sft import tokenization
from finetuned_sft.params import SFTParams
from finetuned_sft.prepared import prepare
from finetuned_sft.validation import detect_format
from finetuned_training import arguments, batch_shape, chat, checks, publishing, trained_data
from finetuned_training.dataset import telling
from finetuned_training.metering import MeteredTrainer, StepMeter
from finetuned_training.model import holds_gpu, load_adapter, load_model, load_tokenizer, lora_config
from finetuned_training.model_card import Method
from finetuned_training.reporting import Reporter, ResumableEarlyStopping
from finetuned_training.settings import Resolved, intervals, resolve, total_steps

HOW = Method("supervised fine-tuning", "sft")


def train(ctx: WorkerContext, params: SFTParams) -> None:
    """Train, publish and register a model. Returns early, with nothing published, when asked to stop."""
    checks.refuse_remote_code(ctx, params)
    of_job = ctx.load_callbacks()  # before all that takes long, so that what is wrong with them shows at once
    gpu = holds_gpu(ctx)
    cpu_count = len(os.sched_getaffinity(0))
    settings = resolve(
        params, cpu_count=cpu_count, gpu=gpu, bf16_supported=gpu and torch.cuda.is_bf16_supported()
    )
    base = ctx.model_path("model")
    datasets.disable_progress_bars()

    ################
    # Dataset
    ################
    ctx.phase(phases.PREPARING_DATA)
    data = trained_data.hashes(ctx, params)
    if ctx.resume_from is not None:
        trained_data.require_those_of(ctx.resume_from, data)
    tokenizer = load_tokenizer(base, params)
    train_dataset = load_rows(
        ctx.dataset_path("dataset"),
        params.dataset_split,
        ctx.work_dir / "train.arrow",
        params,
        tokenizer,
        ctx.advancing,
    )
    eval_dataset = None
    if params.eval_dataset is not None:
        eval_dataset = load_rows(
            ctx.dataset_path("eval_dataset"),
            "test",
            ctx.work_dir / "eval.arrow",
            params,
            tokenizer,
            ctx.advancing,
        )
    elif params.eval_split > 0:
        parts = train_dataset.train_test_split(test_size=params.eval_split, seed=params.seed)
        train_dataset, eval_dataset = parts["train"], parts["test"]
    trained_data.require_same(trained_data.hashes(ctx, params), data, "while it was read")

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
    reporter = Reporter(
        ctx,
        meter,
        workers=settings.dataloader_num_workers,
        cpu_count=cpu_count,
        save_total_limit=settings.save_total_limit,
        max_loss_ratio=params.max_loss_ratio,
        data=data,
    )
    callbacks = [reporter, *of_job]
    if params.early_stopping_patience is not None:
        callbacks.append(ResumableEarlyStopping(params.early_stopping_patience))

    trainer = MeteredSFTTrainer(
        ctx,
        meter,
        model=model,
        args=sft_config(ctx.work_dir, ctx.job_id, params, settings, gpu=gpu),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
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
        ctx, params, trainer, how=HOW, rows=len(train_dataset), dataset_sha256=data[params.dataset]
    )
    for file in ctx.work_dir.glob("*.arrow"):
        file.unlink(missing_ok=True)


class MeteredSFTTrainer(MeteredTrainer, trl.SFTTrainer):
    """TRL's trainer, watched over."""


def load_rows(
    path: str,
    split: str,
    file: Path,
    params: SFTParams,
    tokenizer: chat.Tokenizer,
    advancing: Callable[[], None],
) -> datasets.Dataset:
    """Tokenized and masked rows in ``file``, ready for the trainer; ``advancing`` is called for each."""
    form = params.dataset_format or detect_format(path, split)
    rule = tokenization.loss_rule(params, form, tokenizer)
    rows = telling(advancing, tokenization.tokenized_rows(path, split, rule, tokenizer))
    return prepare(rows, file, source=path, max_length=params.max_length)


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
