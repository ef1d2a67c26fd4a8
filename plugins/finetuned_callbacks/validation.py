"""``validation``: ask the model the held-out rows, score the answers, keep samples.

The training must not notice: modules get their modes back one by one, random states and the tokenizer's padding
side are restored, and answers are greedy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jinja2
import torch
from transformers import GenerationConfig, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from finetuned_callbacks import metrics, rows
from finetuned_callbacks.params import ValidationParams
from finetuned_callbacks.rows import HeldOutRow
from finetuned_sdk import JobError, WorkerContext, phases


def create(ctx: WorkerContext, params: ValidationParams) -> ValidationCallback:
    """Read the held-out rows (so that a bad file fails before the training) and make the callback."""
    return ValidationCallback(ctx, params, rows.load(params.dataset, params.limit))


class ValidationCallback(TrainerCallback, ExportableState):
    """Validates at the moments that its parameters name. The first figures travel in the checkpoints."""

    def __init__(self, ctx: WorkerContext, params: ValidationParams, held_out: Sequence[HeldOutRow]) -> None:
        self.ctx = ctx
        self.params = params
        self.rows = held_out
        self.metric: metrics.Scored = (
            metrics.choose([row.expected for row in held_out]) if params.metric == "auto" else params.metric
        )
        self.before: dict[str, float] | None = None
        self._scores: dict[int, dict[str, float]] = {}
        self._evaluations = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the figures from before the training, and how many evaluations have been."""
        return {"args": {}, "attributes": {"before": self.before, "evaluations": self._evaluations}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate before the first step; on resume, recall what a checkpoint kept instead."""
        del control
        stored = (state.stateful_callbacks or {}).get(type(self).__name__)
        if isinstance(stored, dict) and self.before is None:
            attributes = stored.get("attributes", {})
            self.before = attributes.get("before")
            self._evaluations = attributes.get("evaluations", 0)
        if "start" in self.params.at and state.global_step == 0:
            self.before = self._validate(args, state, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate every so many steps."""
        del control
        every = self.params.every_steps
        if every is not None and state.global_step % every == 0:
            self._validate(args, state, **kwargs)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate every so many evaluations; the figures join the evaluation's own metrics."""
        del control
        self._evaluations += 1
        every = self.params.every_evals
        if every is None or self._evaluations % every:
            return
        scores = self._validate(args, state, **kwargs)
        if scores is not None and isinstance(kwargs.get("metrics"), dict):
            kwargs["metrics"].update({f"eval_{name}": value for name, value in scores.items()})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate after the last step, unless the job is only being stopped, and set the result."""
        del control
        if "end" not in self.params.at or self.ctx.stop_requested is not None:
            return
        after = self._validate(args, state, ending=True, **kwargs)
        if after is not None:
            self.ctx.result(validation={"before": self.before, "after": after, "rows": len(self.rows)})

    def _validate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        *,
        model: Any,
        processing_class: Any,
        ending: bool = False,
        **_: Any,
    ) -> dict[str, float] | None:
        """The scores at this step, reported; ``None`` if the job was asked to stop meanwhile."""
        step = state.global_step
        if not state.is_world_process_zero:
            return None
        if step in self._scores:  # two of the moments fell together
            return self._scores[step]
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.ctx.phase(phases.EVALUATING)
        started = time.monotonic()
        with _undisturbed(model, tokenizer, args):
            answers = self._answers(model, tokenizer)
        if answers is None:
            return None
        scores = metrics.score([row.expected for row in self.rows], answers, self.metric)
        self._scores = {step: scores}
        self._keep_samples(step, answers)
        self.ctx.evaluation(
            "validation",
            {**scores, "rows": len(self.rows), "seconds": round(time.monotonic() - started, 3)},
            step=step,
        )
        if not ending:
            self.ctx.phase(phases.TRAINING)
        return scores

    def _answers(self, model: Any, tokenizer: Any) -> list[str] | None:
        """The model's answer to each row, in the rows' order; ``None`` if the job was asked to stop."""
        prompts = [self._render(row, tokenizer) for row in self.rows]
        # Rows of like length together, so that little of a batch is padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        for first in range(0, len(order), self.params.batch_size):
            if self.ctx.stop_requested is not None:
                return None
            batch = order[first : first + self.params.batch_size]
            for index, answer in zip(
                batch, self._generate(model, tokenizer, [prompts[i] for i in batch]), strict=True
            ):
                answers[index] = answer
            self.ctx.advancing()
        return answers

    def _generate(self, model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[str]:
        inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
        output = model.generate(
            **inputs, generation_config=_greedy(model, tokenizer, self.params.max_new_tokens)
        )
        answers = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def _render(self, row: HeldOutRow, tokenizer: Any) -> list[int]:
        """The prompt's tokens, as the trainer would render it."""
        prompt = row.prompt
        if isinstance(prompt, str) and self.params.apply_chat_template:
            prompt = ({"role": "user", "content": prompt},)
        if isinstance(prompt, str):
            return list(tokenizer(prompt)["input_ids"])
        if tokenizer.chat_template is None:
            raise JobError(
                "The model has no chat template, so validation cannot ask rows of messages; "
                "use rows with a text prompt.",
                code="no_chat_template",
            )
        try:
            text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise JobError(
                f"The model's chat template refuses the validation row that asks {row.question()[:60]!r}: {error}. "
                f"Correct the row in {self.params.dataset}.",
                code="bad_dataset",
            ) from error
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _keep_samples(self, step: int, answers: Sequence[str]) -> None:
        count = len(self.rows) if self.params.samples is None else min(self.params.samples, len(self.rows))
        if not count:
            return
        directory = self.ctx.artifact_dir / "validation"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"step-{step:06d}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row, answer in list(zip(self.rows, answers, strict=True))[:count]:
                sample = {
                    "prompt": row.question(),
                    "expected": row.expected,
                    "answer": answer,
                    "right": metrics.is_right(row.expected, answer, self.metric),
                }
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
        self.ctx.artifact(path, kind="validation_samples")


def _greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    ends = {tokenizer.eos_token_id}
    of_model = getattr(model.generation_config, "eos_token_id", None)
    ends.update(of_model if isinstance(of_model, list) else [of_model])
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(token for token in ends if token is not None),
    )


@contextmanager
def _undisturbed(model: Any, tokenizer: Any, args: TrainingArguments) -> Iterator[None]:
    """Generation without gradients, dropout or a trace in the training."""
    modes = [(module, module.training) for module in model.modules()]
    side = tokenizer.padding_side
    device = model.device.type
    half = torch.bfloat16 if args.bf16 else torch.float16
    gpus = [model.device] if device == "cuda" else []
    try:
        tokenizer.padding_side = "left"
        model.eval()
        with (
            torch.random.fork_rng(devices=gpus),
            torch.no_grad(),
            torch.autocast(device, dtype=half, enabled=args.bf16 or args.fp16),
        ):
            yield
    finally:
        tokenizer.padding_side = side
        for module, mode in modes:
            module.training = mode
