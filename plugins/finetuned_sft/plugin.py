"""The declaration of the job kinds ``sft`` and ``sft-audit``. Imported by the daemon: no torch, transformers or pyarrow here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from finetuned_sdk import Host, JobError, JobKind, RefusedError, Registry, Resources, hookimpl
from finetuned_sft import dataset
from finetuned_sft.alternatives import SPEED_PARAMS, alternatives, effective, steps
from finetuned_sft.estimate import estimate
from finetuned_sft.local_path import local_path
from finetuned_sft.params import SFTAuditParams, SFTParams
from finetuned_sft.reduction import reduce_memory
from finetuned_sft.small_json import read_object

MARKERS = {"model": "config.json", "adapter": "adapter_config.json"}
AUDIT_MODULES = ("transformers",)
TRAIN_MODULES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")

# What report_to may name, and a module that shows that it is installed.
TRACKERS = {
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


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
            check=check,
            resources=resources,
            estimate=estimate,
            alternatives=alternatives,
            effective=effective,
            steps=steps,
            speed_params=SPEED_PARAMS,
            model_params=("model", "adapter"),
            dataset_params=("dataset", "eval_dataset"),
            reduce_memory=reduce_memory,
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


def check(params: SFTParams, host: Host) -> None:
    """Refuse what cannot work, without reading a row. Raises ``RefusedError`` that names the parameter."""
    _check_installed(params)
    _check_model(params.model, "model", host)
    if params.adapter is not None:
        _check_model(params.adapter, "adapter", host)
    _check_datasets(params, host)
    _check_code(params, host)
    if params.fp16 and not host.has_gpu:
        raise RefusedError("fp16 needs a GPU and there is none; drop fp16.", param="fp16")


def check_audit(params: SFTAuditParams, host: Host) -> None:
    """Refuse an audit that cannot work. Raises ``RefusedError`` that names the parameter."""
    _require(AUDIT_MODULES)
    _check_model(params.model, "model", host)
    _check_datasets(params, host)
    _check_code(params, host)


def _check_datasets(params: SFTParams, host: Host) -> None:
    _check_dataset(host.dataset(params.dataset), params.dataset_split, "dataset")
    if params.eval_dataset is not None:
        _check_dataset(host.dataset(params.eval_dataset), "test", "eval_dataset")


def _check_code(params: SFTParams, host: Host) -> None:
    if params.trust_remote_code and not host.allow_remote_code:
        raise RefusedError(
            "This daemon does not run code from model repositories; ask its operator to set trust_remote_code in "
            "its configuration, or drop it from the job.",
            param="trust_remote_code",
            code="remote_code_not_allowed",
        )


def _require(modules: Iterable[str]) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise RefusedError(
            f"Training needs {', '.join(missing)}; install finetuned[train] where the daemon runs.",
            param="kind",
            code="missing_dependency",
        )


def _check_installed(params: SFTParams) -> None:
    _require(TRAIN_MODULES)
    if params.method == "qlora" and find_spec("bitsandbytes") is None:
        raise RefusedError(
            "qlora needs bitsandbytes, which is not installed for this machine; install it, or use method=lora.",
            param="method",
            code="missing_dependency",
        )
    for name in params.report_to:
        modules = TRACKERS.get(name)
        if modules is None:
            raise RefusedError(
                f"There is no tracker {name!r}; known are {', '.join(TRACKERS)}.", param="report_to"
            )
        if not any(find_spec(module) for module in modules):
            raise RefusedError(
                f"The tracker {name} is not installed; pip install {modules[0]} where the daemon runs.",
                param="report_to",
                code="missing_dependency",
            )


def _check_model(name: str, param: str, host: Host) -> None:
    """A registered name or a directory, of a model or an adapter as ``param`` says, or what may be a hub id."""
    path = host.models.get(name) or local_path(name)
    if path.is_dir():
        _check_kind(name, param, path)
    if name in host.models:
        return
    if path.is_dir():
        if not (path / MARKERS[param]).is_file():
            raise RefusedError(
                f"{name} has no {MARKERS[param]}, so it is no {param} directory; give the directory that "
                "save_pretrained wrote.",
                param=param,
                code="model_not_found",
            )
        return
    if path.is_file():
        raise RefusedError(
            f"{name} is a file; give a model directory. A GGUF file becomes one with: finetune models import-gguf.",
            param=param,
            code="model_not_found",
        )
    if dataset.HUB_ID.match(name) and not path.parent.is_dir():
        return
    near = difflib.get_close_matches(name, list(host.models), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise RefusedError(
        f"There is no {param} {name}: no directory, no registered model (finetune models lists them) and no hub id "
        f"(owner/name).{hint}",
        param=param,
        code="model_not_found",
    )


def _check_kind(name: str, param: str, path: Path) -> None:
    """Refuse an adapter where a model is wanted, and the other way round."""
    (other,) = MARKERS.keys() - {param}
    if (path / MARKERS[param]).is_file() or not (path / MARKERS[other]).is_file():
        return
    if param == "adapter":
        remedy = "is a whole model, not an adapter; pass it as model=, and drop adapter"
    else:
        base = _base_model(path / MARKERS["adapter"])
        remedy = (
            f"is an adapter, not a whole model; pass it as adapter=, with model={base or 'its base model'}"
        )
    raise RefusedError(f"{name} {remedy}.", param=param, code="wrong_model_kind")


def _base_model(adapter_config: Path) -> str | None:
    try:
        base = read_object(adapter_config)["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        return None
    return base if isinstance(base, str) and base else None


def _check_dataset(name: str, split: str, param: str) -> None:
    try:
        paths = dataset.files(name, split)
    except JobError as error:
        raise RefusedError(error.message, param=param, code=error.code) from error
    if paths and all(path.stat().st_size == 0 for path in paths):
        raise RefusedError(f"{name} is empty; add rows.", param=param, code="bad_dataset")
