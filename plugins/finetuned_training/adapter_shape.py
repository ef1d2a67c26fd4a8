"""What of a model is adapted: by a new adapter as the parameters say, or by an earlier one as its own file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuned_sdk import Host
from finetuned_training.local_path import local_path
from finetuned_training.params import TrainingParams
from finetuned_training.settings import Resolved
from finetuned_training.small_json import read_object

CONFIG = "adapter_config.json"
LARGEST_RANK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter's rank, the modules that it is for as peft takes them, and its dropout while training."""

    rank: int
    targets: str | Sequence[str]
    dropout: float


def adapter_of(params: TrainingParams, settings: Resolved, host: Host) -> Adapter | None:
    """The adapter that is trained; ``None`` where every weight is. One that is on a hub counts as a new one.

    Raises ``OSError``, ``ValueError`` or ``KeyError`` if an earlier adapter's file is not as peft writes it.
    """
    if params.method == "full":
        return None
    if params.adapter is not None:
        directory = host.models.get(params.adapter) or local_path(params.adapter)
        if directory.is_dir():
            return read_adapter(directory)
    return Adapter(rank=settings.lora_r, targets=settings.lora_target_modules, dropout=settings.lora_dropout)


def read_adapter(directory: Path) -> Adapter:
    """An earlier adapter. Raises as :func:`adapter_of` does."""
    match read_object(directory / CONFIG):
        case {"r": int(rank), "target_modules": targets, **rest} if 1 <= rank <= LARGEST_RANK:
            dropout = rest.get("lora_dropout", 0.0)
            if isinstance(dropout, int | float) and _is_targets(targets):
                return Adapter(rank=rank, targets=targets, dropout=float(dropout))
    raise ValueError(f"{directory / CONFIG} describes no LoRA adapter")


def _is_targets(targets: object) -> bool:
    return isinstance(targets, str) or (
        isinstance(targets, list) and all(isinstance(target, str) for target in targets)
    )
