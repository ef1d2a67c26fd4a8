"""The declaration of the job kind ``dpo``. Imported by the daemon: no torch, transformers or pyarrow here."""

from __future__ import annotations

from finetuned_dpo.params import DPOParams
from finetuned_sdk import Host, JobKind, Registry, Resources, hookimpl
from finetuned_training import checks
from finetuned_training.alternatives import SPEED_PARAMS, alternatives, effective, steps
from finetuned_training.estimate import estimate
from finetuned_training.preloading import preloading
from finetuned_training.reduction import reduce_memory


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind ``dpo``."""
    register.job_kind(
        JobKind(
            name="dpo",
            summary="Direct preference optimisation: of two answers to a prompt, the one that is preferred.",
            params=DPOParams,
            entry="finetuned_dpo.trainer:train",
            validator="finetuned_dpo.validation:validate",
            check=checks.check_training,
            resources=resources,
            estimate=estimate,
            alternatives=alternatives,
            effective=effective,
            steps=steps,
            speed_params=(*SPEED_PARAMS, "reference_cache"),
            model_params=("model", "adapter"),
            dataset_params=("dataset", "eval_dataset"),
            reduce_memory=reduce_memory,
            preload=preloading("finetuned_dpo.trainer"),
        )
    )


def resources(_params: DPOParams, _host: Host) -> Resources:
    """One device: the trainer computes in one process."""
    return Resources(devices=1)
