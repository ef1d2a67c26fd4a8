"""How requests end that are not answered."""

from __future__ import annotations

import torch

from finetuned_sdk.engines import EngineGoneError, RequestError
from finetuned_sdk.worker_failures import is_out_of_memory
from finetuned_transformers.rows import Row


def failure(error: Exception) -> EngineGoneError:
    """Nobody's fault: who asked asks again, of the engine that comes in the place of this one."""
    gone = EngineGoneError(f"the engine has failed: {type(error).__name__}: {error}")
    gone.__cause__ = error
    return gone


def is_the_devices(error: Exception) -> bool:
    """Whether a device has failed in a way that it stays in, so that no call of the process works any more."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def stopping() -> RequestError:
    """Of one that the engine has no time for any more."""
    return RequestError("The engine is stopping.", status=503, type="server_error", code="engine_stopping")


def no_numbers() -> RequestError:
    """Of one whose probabilities are none."""
    return RequestError(
        "The model's probabilities are no numbers here; ask for dtype float32, or check its weights.",
        status=500,
        type="server_error",
        code="model_diverged",
    )


def no_room(row: Row) -> RequestError:
    """Of one that has no memory even alone."""
    prompt, limit = len(row.prompt.ids), row.prompt.limit
    return RequestError(
        f"There is no memory for a request of {limit} tokens ({prompt} in the prompt, at most {limit - prompt} in the "
        "completion), even alone. Please reduce the length of the prompt or completion.",
        code="context_length_exceeded",
    )
