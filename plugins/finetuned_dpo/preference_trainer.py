"""TRL's DPO trainer over pairs that are tokens already, with reference scores that outlive the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from datasets import Dataset
from numpy.typing import NDArray

from finetuned_dpo.reference import ReferenceScores
from finetuned_sdk import WorkerContext
from finetuned_training.labelled_head import labelled_only
from finetuned_training.metering import MeteredTrainer, StepMeter

SCORING = "scoring_reference"
REFERENCE_ADAPTER = "ref"  # TRL's name for it


class StoppedError(Exception):
    """The job was asked to stop before its first step."""


class PreferenceTrainer(MeteredTrainer, trl.DPOTrainer):
    """Measures and reports as all our trainers do; asks the reference model once, before the first step."""

    def __init__(
        self, ctx: WorkerContext, meter: StepMeter, scores: ReferenceScores | None, **kwargs: Any
    ) -> None:
        self._scores = scores
        super().__init__(ctx, meter, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_kwargs: Any) -> Dataset:
        """They are tokens, made by the code that validated them."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, _name: str, batch_size: int) -> Dataset:
        """The pairs with the reference's sums of log-probabilities beside them. Raises :class:`StoppedError`."""
        assert self._scores is not None
        key = self._scores.key(dataset)
        found = self._scores.load(key, len(dataset))
        if found is None:
            self.ctx.phase(SCORING)
            found = self._ask_reference(dataset, batch_size)
            self._scores.store(key, found)
        for number, column in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
            dataset = dataset.add_column(column, found[:, number].tolist())
        return dataset

    def _ask_reference(self, dataset: Dataset, batch_size: int) -> NDArray[np.float32]:
        """Sums of log-probabilities, float32 [pairs, 2]; pairs of like length together, so that little is padding."""
        lengths = [
            len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in dataset
        ]
        order = sorted(range(len(dataset)), key=lambda row: (lengths[row], row))
        found = np.empty((len(dataset), 2), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            if self.ctx.stop_requested is not None:
                raise StoppedError
            rows = order[start : start + batch_size]
            batch = self.data_collator([dataset[row] for row in rows])
            batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            with labelled_only():
                sides = self.compute_ref_log_probs(self.ref_model or self.model, batch)
            found[rows] = torch.stack(sides, dim=1).float().cpu().numpy()
            self.ctx.advancing()
        return found

    def rows_in(self, batch: dict[str, Any]) -> int:
        """Pairs: chosen and rejected are a sequence each."""
        return int(batch["input_ids"].shape[0]) // 2

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: Any) -> Any:
        """TRL's loss and figures, with two beside them.

        ``logps/accuracies`` is the share of pairs whose chosen answer is the likelier one. ``forward_kl_k1`` is the mean
        of log π_ref(y|x) - log π(y|x) over both answers, in nats an answer (docs/reference/dpo.md).
        """
        seen: list[Any] = []

        def watched(**kwargs: Any) -> Any:
            seen.append(model(**kwargs))
            return seen[-1]

        loss = super()._compute_loss(watched, inputs, return_outputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        chosen, rejected = seen[0].log_probs.detach().sum(dim=1).chunk(2)
        metrics["logps/accuracies"].append((chosen > rejected).float().mean().item())
        rewards = metrics["rewards/chosen"][-1] + metrics["rewards/rejected"][-1]
        metrics["forward_kl_k1"].append(0.0 - rewards / 2 / self.beta)
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The trained adapter without the copy of the earlier one that TRL compares it with: it is loaded, not resumed."""
        super()._save(output_dir, state_dict)
        shutil.rmtree(Path(output_dir or self.args.output_dir, REFERENCE_ADAPTER), ignore_errors=True)
