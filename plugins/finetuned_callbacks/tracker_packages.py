"""Which packages the trackers need, and whether they are installed. The daemon imports this module: no torch."""

from __future__ import annotations

import importlib.util
from typing import Final

from finetuned_callbacks.params import TrackerName
from finetuned_sdk.errors import JobError

# The modules that transformers looks for, and the package to install if there is none of them.
MODULES: Final[dict[TrackerName, tuple[str, ...]]] = {
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
}


def require(tracker: TrackerName) -> None:
    """Raise ``JobError`` that names the package if the tracker is not installed."""
    if not any(importlib.util.find_spec(module) for module in MODULES[tracker]):
        package = MODULES[tracker][0]
        raise JobError(
            f"The tracker {tracker!r} needs the package {package!r}, which is not installed: "
            f"pip install {package}, or leave the callback out.",
            code="missing_package",
        )
