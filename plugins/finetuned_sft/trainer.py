"""Supervised fine-tuning: the work of an ``sft`` job, top to bottom.

Runs in a worker process. ``train`` loads the tokenizer, the rows and the model, hands them to TRL's
``SFTTrainer``, and publishes what comes out. Rows are tokenized by the same code that validated them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import datasets
import torch
from trl import SFTConfig

from finetuned_sdk import JobError, WorkerContext, phases
from finetuned_sft import model_card, tokenization, trained_data
from finetuned_sft.metering import MeteredSFTTrainer, StepMeter
from finetuned_sft.model import load_adapter, load_model, load_tokenizer, lora_config, merge_adapter
from finetuned_sft.params import SFTParams
from finetuned_sft.prepared import prepare
from finetuned_sft.reporting import Reporter, ResumableEarlyStopping
from finetuned_sft.settings import Resolved, intervals, resolve, total_steps
from finetuned_sft.validation import detect_format, refuse_remote_code

Row = TypeVar("Row")


def train(ctx: WorkerContext, params: SFTParams) -> None:
    """Train, publish and register a model. Returns early, with nothing published, when asked to stop."""
    refuse_remote_code(ctx, params)
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
    )
    steps = total_steps(params, len(trainer.train_dataset))
    eval_steps, trainer.args.save_steps = intervals(params, settings, steps)
    trainer.args.eval_steps = eval_steps if params.evaluates else None

    if ctx.resume_from is not None and last_step(ctx.resume_from) >= steps:
        trainer.restore(str(ctx.resume_from))
    else:
        trainer.train(resume_from_checkpoint=str(ctx.resume_from) if ctx.resume_from else None)
    if ctx.stop_requested is not None:
        return

    publish(ctx, params, trainer, rows=len(train_dataset), dataset_sha256=data[params.dataset])
    for file in ctx.work_dir.glob("*.arrow"):
        file.unlink(missing_ok=True)


def holds_gpu(ctx: WorkerContext) -> bool:
    """Whether the attempt trains on a GPU. Raises ``JobError`` if it holds one that torch cannot use."""
    gpu = any(device.startswith("gpu:") for device in ctx.device_ids)
    if gpu and not torch.cuda.is_available():
        raise JobError(
            f"The job holds {', '.join(ctx.device_ids)}, but torch {torch.__version__} cannot use it; install a CUDA "
            "build of torch that fits the driver.",
            code="gpu_unusable",
        )
    return gpu


def publish(
    ctx: WorkerContext,
    params: SFTParams,
    trainer: MeteredSFTTrainer,
    *,
    rows: int,
    dataset_sha256: str | None,
) -> None:
    """Save the model with tokenizer and card, register it, and set the job's result."""
    ctx.phase(phases.SAVING)
    state = trainer.state
    best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    figures = {
        "train_loss": mean_loss(state.log_history),
        "eval_loss": state.best_metric if best else last(state.log_history, "eval_loss"),
    }
    lineage = model_card.Lineage(
        job_id=ctx.job_id,
        base_model=params.model,
        adapter=params.adapter,
        method=params.method,
        dataset=params.dataset,
        dataset_sha256=dataset_sha256,
        dataset_rows=rows,
        params=params.model_dump(mode="json", exclude_defaults=True),
        libraries=model_card.installed_libraries(),
    )
    name = params.output_name or f"{Path(params.model).name}-{ctx.job_id}"
    kind = "full" if params.method == "full" else "adapter"
    directory = ctx.artifact_dir / ("model" if kind == "full" else "adapter")

    def register(path: Path, name: str, kind: str) -> None:
        trainer.processing_class.save_pretrained(path)
        (path / "README.md").write_text(model_card.render(name, kind, lineage, figures), encoding="utf-8")
        ctx.artifact(path, kind=kind)
        ctx.model(path, name=name, base=params.model, kind=kind, **lineage.as_dict())

    trainer.save_model(str(directory))
    (directory / "training_args.bin").unlink(
        missing_ok=True
    )  # a pickle; the card says the same in plain text
    register(directory, name, kind)
    if params.merge_adapter:
        merged = ctx.artifact_dir / "merged"
        merge_adapter(ctx.model_path("model"), directory, merged, params)
        register(merged, f"{name}-merged", "merged")

    ctx.result(
        **figures,
        model=name,
        adapter_path=str(directory) if kind == "adapter" else None,
        model_path=str(directory) if kind == "full" else None,
        merged_path=str(merged) if params.merge_adapter else None,
        steps=state.global_step,
        best_step=state.best_global_step if best else None,
    )


def load_rows(
    path: str,
    split: str,
    file: Path,
    params: SFTParams,
    tokenizer: tokenization.Tokenizer,
    advancing: Callable[[], None],
) -> datasets.Dataset:
    """Tokenized and masked rows in ``file``, ready for the trainer; ``advancing`` is called for each."""
    form = params.dataset_format or detect_format(path, split)
    rule = tokenization.loss_rule(params, form, tokenizer)
    rows = _telling(advancing, tokenization.tokenized_rows(path, split, rule, tokenizer))
    return prepare(rows, file, source=path, max_length=params.max_length)


def _telling(advancing: Callable[[], None], rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; a large dataset takes hours, and the watchdog is to see that it gets on."""
    for row in rows:
        advancing()
        yield row


def sft_config(
    output_dir: Path, run_name: str, params: SFTParams, settings: Resolved, *, gpu: bool
) -> SFTConfig:
    """TRL's configuration. What is not set here is TRL's default."""
    return SFTConfig(
        output_dir=str(output_dir),
        run_name=run_name,
        seed=params.seed,
        # Data: tokenized, masked and cut already; only packing is left to TRL.
        max_length=params.max_length,
        packing=params.packing,
        dataset_kwargs=None if params.packing else {"skip_prepare_dataset": True},
        # Training
        max_steps=params.max_steps or -1,
        num_train_epochs=params.num_train_epochs,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        optim=settings.optim,
        neftune_noise_alpha=params.neftune_noise_alpha,
        # Device
        use_cpu=not gpu,
        bf16=settings.bf16,
        fp16=settings.fp16,
        activation_checkpointing=settings.gradient_checkpointing,
        # Data loading
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_prefetch_factor=settings.dataloader_prefetch_factor,
        # Loader processes that persist would draw no seed at an epoch's start, as a resumed run has to: the two
        # would part there.
        dataloader_persistent_workers=False,
        dataloader_pin_memory=gpu,
        # Evaluation, saving, logging: the intervals are set in whole steps once their number is known.
        eval_strategy="steps" if params.evaluates else "no",
        eval_steps=settings.eval_steps if params.evaluates else None,
        save_strategy="steps",
        save_steps=settings.save_steps,
        load_best_model_at_end=settings.load_best_model_at_end,
        metric_for_best_model="eval_loss" if params.evaluates else None,
        greater_is_better=False if params.evaluates else None,
        logging_steps=params.logging_steps,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=params.report_to or "none",
    )


def last_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    step: int = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    return step


def mean_loss(log_history: list[dict[str, float]]) -> float | None:
    """The mean loss over all steps, also those before a resume; each log covers the steps since the one before."""
    logs = [(log["step"], log["loss"]) for log in log_history if "loss" in log]
    starts = [0, *(step for step, _ in logs)]
    total = sum(loss * (step - start) for (step, loss), start in zip(logs, starts, strict=False))
    return total / logs[-1][0] if logs else None


def last(log_history: list[dict[str, float]], name: str) -> float | None:
    """The newest value of a figure in the trainer's log."""
    return next((log[name] for log in reversed(log_history) if name in log), None)
