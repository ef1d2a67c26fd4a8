"""The declaration of the job kinds ``sft`` and ``sft-audit``. Imported by the daemon: no torch, transformers or pyarrow here."""

from __future__ import annotations

from finetuned_sdk import Host, JobKind, Registry, Resources, hookimpl
from finetuned_sft.params import SFTAuditParams, SFTParams
from finetuned_training import checks
from finetuned_training.alternatives import SPEED_PARAMS, alternatives, effective, steps
from finetuned_training.estimate import estimate
from finetuned_training.preloading import preloading
from finetuned_training.reduction import reduce_memory


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kinds ``sft`` and ``sft-audit``."""
    register.job_kind(
        JobKind(
            name="sft",
            summary="Supervised fine-tuning of a language model: LoRA, QLoRA or every weight.",
            params=SFTParams,
            entry="finetuned_sft.trainer:train",
            validator="finetuned_sft.validation:validate",
            check=checks.check_training,
            resources=resources,
            estimate=estimate,
            alternatives=alternatives,
            effective=effective,
            steps=steps,
            speed_params=(*SPEED_PARAMS, "packing"),
            model_params=("model", "adapter"),
            dataset_params=("dataset", "eval_dataset"),
            reduce_memory=reduce_memory,
            preload=preloading("finetuned_sft.trainer"),
        )
    )
    register.job_kind(
        JobKind(
            name="sft-audit",
            summary="Read a dataset as sft would, report on it, and show its first rows as tokens.",
            params=SFTAuditParams,
            entry="finetuned_sft.audit:run",
            check=check_audit,
            resources=no_device,
            model_params=("model", "adapter"),
            dataset_params=("dataset", "eval_dataset"),
        )
    )


def resources(_params: SFTParams, _host: Host) -> Resources:
    """One device: the trainer computes in one process."""
    return Resources(devices=1)


def no_device(_params: SFTAuditParams, _host: Host) -> Resources:
    """None: only the tokenizer computes."""
    return Resources(devices=0)


def check_audit(params: SFTAuditParams, host: Host) -> None:
    """Refuse an audit that cannot work. Raises ``RefusedError`` that names the parameter."""
    checks.require_installed(checks.AUDIT_MODULES)
    checks.check_model(params.model, "model", host)
    checks.check_datasets(params, host)
    checks.check_code(params, host)
