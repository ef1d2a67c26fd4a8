"""On-policy distillation: the work of an ``opd`` job, top to bottom.

Runs in a worker process. ``train`` loads the tokenizer, the prompts, the student and its teacher, has the student learn
from what the teacher says of its answers, and publishes what comes out. Prompts are tokenized by the same code that
validated them.
"""

from __future__ import annotations

from typing import Any

import datasets
from peft import get_peft_model
from transformers import TrainingArguments, set_seed

from finetuned_opd import prepared, prompts, scored_rows
from finetuned_opd.distillation_trainer import DistillationTrainer
from finetuned_opd.objective import Objective
from finetuned_opd.params import OPDParams
from finetuned_opd.sampling import Sampler, Sampling
from finetuned_opd.teaching import closed_after, teacher_of
from finetuned_opd.validation import detect_format
from finetuned_sdk import WorkerContext, phases
from finetuned_training import arguments, chat, checks, publishing, splits
from finetuned_training.dataset import telling
from finetuned_training.metering import StepMeter
from finetuned_training.model import load_adapter, load_model, load_tokenizer, lora_config, settled
from finetuned_training.model_card import Method
from finetuned_training.reporting import callbacks_of
from finetuned_training.settings import Resolved, intervals, total_steps

HOW = Method("on-policy distillation", "opd")

#: what the result and the model's card tell of held-out prompts, and the trainer's name for it
HELD_OUT = {name: name for name in ("kl_reverse", "kl_reverse_top_k", "kl_reverse_k1", "token_agreement")}


def train(ctx: WorkerContext, params: OPDParams) -> None:
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
        return load_prompts(ctx, param, split, params, tokenizer)

    data = splits.read(ctx, params, load)

    ################
    # Student and teacher
    ################
    ctx.phase(phases.LOADING_MODEL)
    set_seed(params.seed)  # new adapters are drawn at random
    student = load_student(ctx, base, params, settings, gpu=gpu)
    teacher, teacher_head = teacher_of(ctx, params, student, tokenizer, gpu=gpu)
    sampler = None if params.precomputed_scores else Sampler(student, sampling(params, student, tokenizer))

    ################
    # Training
    ################
    meter = StepMeter()
    callbacks = callbacks_of(ctx, params, settings, meter, data.hashes, of_job)

    trainer = DistillationTrainer(
        ctx,
        meter,
        objective=Objective.of(params),
        teacher=teacher,
        teacher_head=teacher_head,
        sampler=sampler,
        share=params.lmbda,
        prefix=params.prefix_tokens,
        model=student,
        args=training_arguments(ctx, params, settings, gpu=gpu),
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    steps = total_steps(params, len(data.train))
    eval_steps, trainer.args.save_steps = intervals(params, settings, steps)
    trainer.args.eval_steps = eval_steps if params.evaluates else None

    with closed_after(teacher):
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


def load_student(ctx: WorkerContext, base: str, params: OPDParams, settings: Resolved, *, gpu: bool) -> Any:
    """What is trained: the whole model, or an adapter of it."""
    model = load_model(base, params, settings, gpu=gpu)
    if params.adapter is not None:
        model = load_adapter(model, ctx.model_path("adapter"))
    elif params.method != "full":
        model = get_peft_model(model, lora_config(settings, params))
    if params.method != "full" and settings.gradient_checkpointing:
        model.enable_input_require_grads()  # what is recomputed needs an input that has a gradient
    return model


def sampling(params: OPDParams, student: Any, tokenizer: Any) -> Sampling:
    """How the student answers; it may end a turn with any token that its configuration ends one with."""
    ends = student.generation_config.eos_token_id
    stop_ids = {ends} if isinstance(ends, int) else set(ends or ())
    if tokenizer.eos_token_id is not None:
        stop_ids.add(tokenizer.eos_token_id)
    return Sampling(
        max_new_tokens=params.new_tokens,
        stop_ids=frozenset(stop_ids),
        temperature=params.sampling_temperature,
        top_p=params.top_p,
    )


def load_prompts(
    ctx: WorkerContext, param: str, split: str, params: OPDParams, tokenizer: chat.Tokenizer
) -> datasets.Dataset:
    """The tokenized prompts that ``param`` names, in a file of the work directory."""
    path, file = ctx.dataset_path(param), ctx.work_dir / f"{param}.arrow"
    if params.precomputed_scores:
        scored = scored_rows.read(str(prepared.scored_file(path, split)))
        return prepared.of_scored(telling(ctx.advancing, scored), file, params, source=path)
    form = params.dataset_format or detect_format(path, split)
    as_chat = prompts.renders_strings(params.apply_chat_template, form, tokenizer, params.model)
    questions = prompts.tokenized_questions(path, split, form, tokenizer, as_chat=as_chat)
    return prepared.of_questions(telling(ctx.advancing, questions), file, params, source=path)


def training_arguments(
    ctx: WorkerContext, params: OPDParams, settings: Resolved, *, gpu: bool
) -> TrainingArguments:
    """Transformers' configuration. What is not set here is its default."""
    return TrainingArguments(
        **arguments.of_training(ctx.work_dir, ctx.job_id, params, settings, gpu=gpu),
        remove_unused_columns=False,
        # Held-out prompts are answered before the first step, once.
        eval_on_start=params.evaluates and ctx.resume_from is None,
        prediction_loss_only=True,
    )
