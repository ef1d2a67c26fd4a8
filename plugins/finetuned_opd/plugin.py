"""The declaration of the job kind ``opd``. Imported by the daemon: no torch, transformers or pyarrow here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from finetuned_opd import endpoint, vocabulary
from finetuned_opd.params import OPDParams
from finetuned_opd.sizing import estimate
from finetuned_sdk import Host, JobKind, RefusedError, Registry, Resources, hookimpl
from finetuned_training import checks
from finetuned_training.alternatives import SPEED_PARAMS, effective, steps
from finetuned_training.local_path import local_path
from finetuned_training.preloading import PRELOADED, is_quantised, needs_bitsandbytes
from finetuned_training.reduction import reduce_memory

SPEED = (
    "teacher",
    "teacher_endpoint",
    "self_distillation",
    "precomputed_scores",
    "max_completion_length",
    "prefix_tokens",
    "top_k",
    "objective",
    "lmbda",
    "kl_weight",
)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind ``opd``."""
    register.job_kind(
        JobKind(
            name="opd",
            summary="On-policy distillation: a student answers, its teacher scores every token, the student learns from that.",
            params=OPDParams,
            entry="finetuned_opd.trainer:train",
            validator="finetuned_opd.validation:validate",
            check=check,
            resources=resources,
            estimate=estimate,
            effective=effective,
            steps=steps,
            speed_params=(*SPEED_PARAMS, *SPEED),
            model_params=("model", "adapter", "teacher", "teacher_adapter"),
            dataset_params=("dataset", "eval_dataset"),
            path_params=("teacher_endpoint",),
            reduce_memory=reduce_memory,
            preload=preload,
        )
    )


def resources(_params: OPDParams, _host: Host) -> Resources:
    """One device: sampler, teacher and student take turns in one process."""
    return Resources(devices=1)


def preload(params: OPDParams) -> tuple[str, ...]:
    """What may be imported before the job starts."""
    quantised = params.teacher is not None and (params.teacher_in_4bit or is_quantised(params.teacher))
    return () if quantised or needs_bitsandbytes(params) else ("finetuned_opd.trainer", PRELOADED)


def check(params: OPDParams, host: Host) -> None:
    """Refuse a distillation that cannot work. Raises ``RefusedError`` that names the parameter."""
    checks.check_training(params, host)
    student = _directory(params.model, host)
    if params.teacher is not None:
        checks.check_model(params.teacher, "model", host, param="teacher")
        teacher = _directory(params.teacher, host)
        if student is not None and teacher is not None:
            vocabulary.check(student, teacher, full=params.compares_all, param="teacher")
    if params.teacher_in_4bit and find_spec("bitsandbytes") is None:
        raise RefusedError(
            "teacher_in_4bit needs bitsandbytes, which is not installed for this machine; install it, or drop "
            "teacher_in_4bit.",
            param="teacher_in_4bit",
            code="missing_dependency",
        )
    if params.teacher_endpoint is not None:
        endpoint.check_url(params.teacher_endpoint, param="teacher_endpoint")
    if params.teacher_adapter is not None:
        checks.check_model(params.teacher_adapter, "adapter", host, param="teacher_adapter")
    size = vocabulary.read_size(student) if student is not None else None
    compared = params.compared_tokens
    if size is not None and compared is not None and compared >= size:
        raise RefusedError(
            f"top_k is {compared}, and the vocabulary has {size:,} tokens; lower it, or drop it to compare them all.",
            param="top_k",
        )


def _directory(name: str, host: Host) -> Path | None:
    """Where a model lies, if it is on this machine."""
    path = host.models.get(name) or local_path(name)
    return path if path.is_dir() else None
