"""transformers' training loop around the three moves of on-policy distillation: sample, score, learn.

A step's prompts come as a window of all its passes. They are answered at once, scored at once, and dealt out again to the
passes by length. What TRL's ``DistillationTrainer`` does is done here where its numbers are to be the same: a token's loss
is its divergence over the number of tokens that the whole step learns from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from finetuned_opd import vocabulary
from finetuned_opd.batch import Batch, batches_of
from finetuned_opd.chunked_loss import Head, chunked_loss
from finetuned_opd.errors import TeacherError
from finetuned_opd.head import head_of
from finetuned_opd.hidden_states import last_hidden_states
from finetuned_opd.objective import Measures, Objective, TokenLoss, answer_loss
from finetuned_opd.pausing import ResumableTrainer
from finetuned_opd.rollouts import Draft, Rollout, draft, scored, stream
from finetuned_opd.sampling import Sampler
from finetuned_opd.scores import Teacher, Wanted
from finetuned_opd.step_clock import StepClock
from finetuned_sdk import WorkerContext
from finetuned_training.metering import StepMeter

Question = Mapping[str, Any]  # prompt_ids and perhaps answer_ids, sampler_log_probs


class DistillationTrainer(ResumableTrainer):
    """A student that learns from what its teacher says of its own completions.

    ``teacher_head`` makes logits of the teacher's hidden states, for the divergence over the whole vocabulary; without it
    the teacher is asked for log-probabilities. ``share`` of the prompts are answered by the student, the others bring
    their answers along.
    """

    # A token's share of the step's loss is worked out over all passes: nothing is left to divide by.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        ctx: WorkerContext,
        meter: StepMeter,
        *,
        objective: Objective,
        teacher: Teacher,
        teacher_head: Head | None,
        sampler: Sampler | None,
        share: float,
        prefix: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ctx, meter, data_collator=list, **kwargs)
        self.loss_is_scaled_for_ga = True
        self.objective = objective
        self.teacher = teacher
        self.teacher_head = teacher_head
        self.sampler = sampler
        self.share = share
        self.wanted: Wanted = objective.wanted(prefix, hidden=teacher_head is not None)
        self.clock = StepClock()
        self.add_callback(self.clock)
        self._metrics: dict[str, dict[str, list[float]]] = {
            "train": defaultdict(list),
            "eval": defaultdict(list),
        }
        self._total_train_tokens = 0
        self._evaluated = 0  # batches of this evaluation
        self._measured: list[Measures] = []  # of the passes of this step

    # ---- a step's prompts, answered and scored -----------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The passes of one step: its prompts sampled from, scored and dealt out."""
        self._read_step()
        windows, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        questions = [question for window in windows for question in window]
        if not questions:
            return windows, None
        generator = stream(self.args.seed, self.state.global_step)
        try:
            rollouts = self._rollouts(questions, generator, self.share)
        except TeacherError:
            self.clock.read()  # of a step that was not made
            self.keep_step()
            raise
        self._total_train_tokens += sum(each.tokens for each in rollouts)
        self._count("train", rollouts)
        return batches_of(rollouts, len(windows), with_answers=self.objective.weight < 1), None

    def _rollouts(
        self, questions: Sequence[Question], generator: torch.Generator, share: float
    ) -> list[Rollout]:
        with self.clock.of("seconds_generate"), self.compute_loss_context_manager():
            drafts = draft(questions, self.sampler, generator, share=share)
        self.ctx.advancing()
        with self.clock.of("seconds_teacher"):
            rollouts = self._scored(drafts)
        self.ctx.advancing()
        return rollouts

    def _scored(self, drafts: Sequence[Draft]) -> list[Rollout]:
        if self.teacher_head is not None:
            known = len(self.teacher_head.weight)
            vocabulary.require_known((each.row.completion for each in drafts), known)
        return scored(drafts, self.teacher, self.wanted)

    # ---- the loss ------------------------------------------------------------------------------------------

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return inputs.to(self.args.device)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with self.clock.of("seconds_loss"):
            loss: Tensor = super().training_step(*args, **kwargs)
        return loss

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share of the step's loss."""
        del num_items_in_batch  # the batch knows how many tokens the step has
        measures = Measures()
        self._measured.append(measures)
        student = self.accelerator.unwrap_model(model)
        hidden = last_hidden_states(student, inputs.input_ids, inputs.shared).flatten(0, 1)
        head = head_of(student).packing()
        token_loss = TokenLoss(self.objective, inputs, self.teacher_head, measures)
        loss = chunked_loss(hidden[inputs.positions], head, token_loss)
        if len(inputs.answer_tokens) and self.objective.weight < 1:
            loss = loss + self._answer_loss(hidden, head, inputs)
        return (loss, None) if return_outputs else loss

    def _answer_loss(self, hidden: Tensor, head: Head, batch: Batch) -> Tensor:
        share = (1 - self.objective.weight) / batch.window_answer_tokens

        def cross_entropy(logits: Tensor, rows: slice) -> Tensor:
            return share * answer_loss(logits, batch.answer_tokens[rows])

        return chunked_loss(hidden[batch.answer_positions], head, cross_entropy)

    # ---- held-out prompts ----------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As transformers does; each prompt is answered with the same random numbers every time."""
        self._evaluated = 0
        self._read_step()  # before what is measured is the held-out prompts'
        try:
            return super().evaluate(*args, **kwargs)
        except TeacherError:
            self.keep_step(evaluated=False)
            raise

    def prediction_step(
        self, model: Any, inputs: Sequence[Question], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of held-out prompts, all answered by the student."""
        del prediction_loss_only, ignore_keys
        generator = stream(self.args.seed, self._evaluated, evaluates=True)
        self._evaluated += 1
        with torch.no_grad(), self.clock.stopped():
            rollouts = self._rollouts(inputs, generator, share=1.0)
            self._count("eval", rollouts)
            (batch,) = batches_of(rollouts, 1, with_answers=self.objective.weight < 1)
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, self._prepare_inputs(batch))
        self._read_measures("eval")
        return loss.detach(), None, None

    # ---- figures -------------------------------------------------------------------------------------------

    def _count(self, mode: str, rollouts: Sequence[Rollout]) -> None:
        figures = self._metrics[mode]
        own = [each.sampled for each in rollouts if each.sampled is not None]
        figures["completions/mean_length"].append(sum(each.tokens for each in rollouts) / len(rollouts))
        if own:
            figures["completions/clipped_ratio"].append(sum(not each.stopped for each in own) / len(own))

    def _read_measures(self, mode: str) -> None:
        """Take over what the passes of a step measured: means over all their tokens."""
        measured, self._measured = self._measured, []
        sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        for measures in measured:
            for name, (total, count) in measures.totals().items():
                sums[name] = (sums[name][0] + total, sums[name][1] + count)
        for name, (total, count) in sums.items():
            if count:
                self._metrics[mode][name].append(total / count)

    def _read_step(self) -> None:
        """Take over what the step before has left: its measures and its seconds."""
        self._read_measures("train")
        for name, seconds in self.clock.read().items():
            self._metrics["train"][name].append(seconds)

    def _keep_sums(self) -> None:
        self._read_step()
        super()._keep_sums()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The means of what was measured since the last log."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._read_step()
            logs["num_tokens"] = float(self._total_train_tokens)
        prefix = "" if mode == "train" else "eval_"
        for name, values in self._metrics[mode].items():
            if values:
                logs[f"{prefix}{name}"] = sum(values) / len(values)
        super().log(logs, start_time)
        self._metrics[mode].clear()

    def rows_in(self, batch: Any) -> int:
        """Prompts."""
        return len(batch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: most of the work is the teacher's and the sampler's."""
        del inputs
        return 0
