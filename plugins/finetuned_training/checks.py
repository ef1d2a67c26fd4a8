"""What is refused of a training before a row is read. Imported by the daemon: no torch, transformers or pyarrow here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from finetuned_sdk import Host, JobError, RefusedError, WorkerContext
from finetuned_training import dataset
from finetuned_training.local_path import local_path
from finetuned_training.params import TrainingParams
from finetuned_training.small_json import read_object

MARKERS = {"model": "config.json", "adapter": "adapter_config.json"}
AUDIT_MODULES = ("transformers",)
TRAIN_MODULES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")

#: the optimizers that are bitsandbytes'
BITSANDBYTES = ("adamw_8bit", "lion_8bit", "lion_32bit", "paged_adamw_8bit", "paged_adamw_32bit")
#: those that need a GPU, and what does as well where there is none
PAGED = {"paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_torch_fused"}

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


def refuse_remote_code(ctx: WorkerContext, params: TrainingParams) -> None:
    """Raise ``JobError`` if the job wants a repository's code to run and the operator does not (or no longer)."""
    if params.trust_remote_code and not ctx.allow_remote_code:
        raise JobError(
            "This daemon does not run code from model repositories; ask its operator to set trust_remote_code in "
            "its configuration, or drop it from the job.",
            code="remote_code_not_allowed",
        )


def check_training(params: TrainingParams, host: Host) -> None:
    """Refuse a training that cannot work. Raises ``RefusedError`` that names the parameter."""
    check_installed(params)
    check_model(params.model, "model", host)
    if params.method != "full" and params.output_name == params.model:
        raise RefusedError(
            f"output_name: an adapter called {params.model} would take the name of the model that it lies over; give it"
            " another.",
            param="output_name",
        )
    if params.adapter is not None:
        check_model(params.adapter, "adapter", host)
    check_datasets(params, host)
    check_code(params, host)
    check_precision(params, host)


def check_precision(params: TrainingParams, host: Host) -> None:
    """Refuse numbers and optimizers that the device does not have, with what does instead."""
    if params.fp16 and not host.has_gpu:
        raise RefusedError("fp16 needs a GPU and there is none; drop fp16.", param="fp16")
    if params.optim in PAGED and not host.has_gpu:
        raise RefusedError(
            f"{params.optim} moves its states between a GPU's memory and the host's, and there is no GPU; use "
            f"optim={PAGED[params.optim]}.",
            param="optim",
        )
    stored = _quantization(host.models.get(params.model) or local_path(params.model))
    if stored is not None and params.method == "full":
        raise RefusedError(
            f"{params.model} is stored in few bits ({stored}), which cannot be trained; use method=lora, or the model as "
            "it was before.",
            param="method",
        )


def check_datasets(params: TrainingParams, host: Host) -> None:
    """Refuse datasets that are not there, or empty."""
    _check_dataset(host.dataset(params.dataset), params.dataset_split, "dataset")
    if params.eval_dataset is not None:
        _check_dataset(host.dataset(params.eval_dataset), "test", "eval_dataset")


def check_code(params: TrainingParams, host: Host) -> None:
    """Refuse a model's own code where the operator does not allow it."""
    if params.trust_remote_code and not host.allow_remote_code:
        raise RefusedError(
            "This daemon does not run code from model repositories; ask its operator to set trust_remote_code in "
            "its configuration, or drop it from the job.",
            param="trust_remote_code",
            code="remote_code_not_allowed",
        )


def require_installed(modules: Iterable[str]) -> None:
    """Refuse what needs a library that is not here."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise RefusedError(
            f"Training needs {', '.join(missing)}; install finetuned[train] where the daemon runs.",
            param="kind",
            code="missing_dependency",
        )


def check_installed(params: TrainingParams) -> None:
    """Refuse what a library is missing for: the training, its method, or a tracker."""
    require_installed(TRAIN_MODULES)
    if params.method == "qlora" and find_spec("bitsandbytes") is None:
        raise RefusedError(
            "qlora needs bitsandbytes, which is not installed for this machine; install it, or use method=lora.",
            param="method",
            code="missing_dependency",
        )
    if params.optim in BITSANDBYTES and find_spec("bitsandbytes") is None:
        raise RefusedError(
            f"The optimizer {params.optim} needs bitsandbytes, which is not installed for this machine; install it, or "
            "use optim=adamw_torch_fused.",
            param="optim",
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


def check_model(name: str, kind: str, host: Host, *, param: str | None = None) -> None:
    """A registered name or a directory, of a model or an adapter as ``kind`` says, or what may be a hub id.

    ``param`` is the parameter that names it, if that is not called as the kind is.
    """
    param = param or kind
    path = host.models.get(name) or local_path(name)
    if path.is_dir():
        _check_kind(name, kind, param, path)
    if name in host.models:
        return
    if path.is_dir():
        if not (path / MARKERS[kind]).is_file():
            raise RefusedError(
                f"{name} has no {MARKERS[kind]}, so it is no {kind} directory; give the directory that "
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
        f"There is no {kind} {name}: no directory, no registered model (finetune models lists them) and no hub id "
        f"(owner/name).{hint}",
        param=param,
        code="model_not_found",
    )


def _check_kind(name: str, kind: str, param: str, path: Path) -> None:
    """Refuse an adapter where a model is wanted, and the other way round."""
    (other,) = MARKERS.keys() - {kind}
    if (path / MARKERS[kind]).is_file() or not (path / MARKERS[other]).is_file():
        return
    model, adapter = ("teacher", "teacher_adapter") if param.startswith("teacher") else ("model", "adapter")
    if kind == "adapter":
        remedy = f"is a whole model, not an adapter; pass it as {model}=, and drop {adapter}"
    else:
        base = _base_model(path / MARKERS["adapter"])
        remedy = f"is an adapter, not a whole model; pass it as {adapter}=, with {model}={base or 'its base model'}"
    raise RefusedError(f"{name} {remedy}.", param=param, code="wrong_model_kind")


def _quantization(model: Path) -> str | None:
    """The way in which a model's weights are stored in few bits; ``None`` of others, and of what cannot be read."""
    try:
        stored = read_object(model / MARKERS["model"]).get("quantization_config")
    except (OSError, ValueError):
        return None
    return str(stored.get("quant_method") or "quantised") if isinstance(stored, dict) else None


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
