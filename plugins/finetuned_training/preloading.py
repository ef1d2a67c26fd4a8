"""What the daemon may have imported before a training starts. Imported by the daemon: no torch here.

A process that others are forked from cannot import bitsandbytes, which initialises CUDA at once. So a training that
needs it imports everything by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from finetuned_training.local_path import local_path
from finetuned_training.model_shape import CONFIG
from finetuned_training.params import TrainingParams
from finetuned_training.small_json import read_object

PRELOADED = "finetuned_training.preloaded"
#: how names on a hub tell that the weights are quantised
_QUANTISED_NAME = re.compile(r"bnb|bitsandbytes|[48]-?bit", re.IGNORECASE)


def preloading(*modules: str) -> Callable[[TrainingParams], tuple[str, ...]]:
    """``preload`` of a job kind whose trainer is in ``modules``."""

    def preload(params: TrainingParams) -> tuple[str, ...]:
        return () if needs_bitsandbytes(params) else (*modules, PRELOADED)

    return preload


def needs_bitsandbytes(params: TrainingParams) -> bool:
    """Whether bitsandbytes may be used: by the method, the optimizer, or a model that is quantised as it lies there."""
    return (
        params.method == "qlora"
        or (params.optim is not None and "8bit" in params.optim)
        or is_quantised(params.model)
    )


def is_quantised(model: str) -> bool:
    """Whether a model's weights are quantised, by its configuration, or by its name where it is not here."""
    directory = local_path(model)
    if not directory.is_dir():
        return _QUANTISED_NAME.search(model) is not None
    try:
        return "quantization_config" in read_object(directory / CONFIG)
    except (OSError, ValueError):
        return False
