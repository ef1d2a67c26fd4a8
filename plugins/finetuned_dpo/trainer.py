"""Direct preference optimisation: the work of a ``dpo`` job, top to bottom.

Runs in a worker process. ``train`` loads the tokenizer, the pairs and the model, hands them to TRL's ``DPOTrainer``,
and publishes what comes out. Pairs are tokenized by the same code that validated them.
"""

from __future__ import annotations

from pathlib import Path

import datasets
from trl import DPOConfig

from finetuned_dpo import tokenization
from finetuned_dpo.params import DPOParams
from finetuned_dpo.preference_trainer import PreferenceTrainer, StoppedError
from finetuned_dpo.prepared import prepare
from finetuned_dpo.reference import ReferenceScores
from finetuned_dpo.validation import detect_format
from finetuned_sdk import WorkerContext, phases
from finetuned_training import arguments, batch_shape, chat, checks, publishing, splits
from finetuned_training.dataset import telling
from finetuned_training.metering import StepMeter
from finetuned_training.model import load_adapter, load_model, load_tokenizer, lora_config, settled
from finetuned_training.model_card import Method
from finetuned_training.model_hash import hash_of
from finetuned_training.reporting import callbacks_of
from finetuned_training.settings import Resolved, intervals, total_steps

HOW = Method("direct preference optimisation", "dpo")

#: what the result and the model's card tell of held-out pairs, and the trainer's name for it
HELD_OUT = {
    "accuracies": "rewards/accuracies",
    "margins": "rewards/margins",
    "logps_accuracies": "logps/accuracies",
    "forward_kl_k1": "forward_kl_k1",
}


def train(ctx: WorkerContext, params: DPOParams) -> None:
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
        return load_pairs(ctx, param, split, params, tokenizer)

    data = splits.read(ctx, params, load)

    ################
    # Model: the reference is the model as it is now, its new adapter switched off; an earlier adapter is copied
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

    scores = reference_scores(ctx, params, settings)
    try:
        trainer = PreferenceTrainer(
            ctx,
            meter,
            scores,
            model=model,
            args=dpo_config(ctx, params, settings, gpu=gpu, precompute=scores is not None),
            train_dataset=data.train,
            eval_dataset=data.held_out,
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=callbacks,
            sorts=params.sort_within_step,
        )
    except StoppedError:
        return
    batch_shape.settle(ctx, params, trainer)
    if params.tune_only:
        return
    steps = total_steps(params, len(data.train))
    eval_steps, trainer.args.save_steps = intervals(params, settings, steps)
    trainer.args.eval_steps = eval_steps if params.evaluates else None

    trainer.run(ctx.resume_from, steps)
    if ctx.stop_requested is not None:
        return

    publishing.publish(
        ctx,
        params,
        trainer,
        how=HOW,
        rows=len(data.train),
        dataset_sha256=data.hashes[params.dataset],
        figures=publishing.held_out(trainer, HELD_OUT),
    )
    for file in ctx.work_dir.glob("*.arrow"):
        file.unlink(missing_ok=True)


def load_pairs(
    ctx: WorkerContext, param: str, split: str, params: DPOParams, tokenizer: chat.Tokenizer
) -> datasets.Dataset:
    """The tokenized pairs that ``param`` names, in a file of the work directory."""
    path = ctx.dataset_path(param)
    form = params.dataset_format or detect_format(path, split)
    pairs = tokenization.tokenized_pairs(path, split, form, tokenizer)
    file = ctx.work_dir / f"{param}.arrow"
    return prepare(telling(ctx.advancing, pairs), file, source=path, max_length=params.max_length)


def reference_scores(ctx: WorkerContext, params: DPOParams, settings: Resolved) -> ReferenceScores | None:
    """Where the reference's scores are kept; ``None`` where they are worked out at every step."""
    if not params.reference_cache:
        return None
    names = ("model", *(("adapter",) if params.adapter is not None else ()))
    directories = [Path(ctx.model_path(name)) for name in names]
    is_local = all(each.is_dir() for each in directories)
    model = hash_of(directories, advancing=ctx.advancing) if is_local else None
    directory = ctx.cache_dir if model is not None else ctx.work_dir  # of a hub id the bytes are not known
    made_from = {
        "model": model or ctx.job_id,
        "method": params.method,
        "bf16": settings.bf16,
        "fp16": settings.fp16,
        "max_length": params.max_length,
        "ld_alpha": params.ld_alpha,
    }
    return ReferenceScores(directory / "reference-scores", made_from)


def dpo_config(
    ctx: WorkerContext, params: DPOParams, settings: Resolved, *, gpu: bool, precompute: bool
) -> DPOConfig:
    """TRL's configuration. What is not set here is TRL's default."""
    return DPOConfig(
        **arguments.of_training(ctx.work_dir, ctx.job_id, params, settings, gpu=gpu),
        max_length=params.max_length,
        trust_remote_code=params.trust_remote_code,  # of a reference that TRL loads itself
        # Loss
        beta=params.beta,
        loss_type=list(params.loss_type),
        loss_weights=params.loss_weights,
        label_smoothing=params.label_smoothing,
        f_divergence_type=params.f_divergence_type,
        ld_alpha=params.ld_alpha,
        precompute_ref_log_probs=precompute,
        # Held-out pairs are looked at before the first step, once.
        eval_on_start=params.evaluates and ctx.resume_from is None,
        prediction_loss_only=True,
    )
