"""The declarations of the callbacks. The daemon imports this module: no torch."""

from __future__ import annotations

from finetuned_callbacks.params import CheckpointParams, TrackerParams, ValidationParams
from finetuned_sdk import Callback, Registry, hookimpl


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the three callbacks."""
    register.callback(
        Callback(
            name="validation",
            summary="Answer held-out rows before, during and after training, score the answers and keep samples.",
            params=ValidationParams,
            entry="finetuned_callbacks.validation:create",
        )
    )
    register.callback(
        Callback(
            name="tracker",
            summary="Report to W&B, MLflow, TensorBoard or trackio.",
            params=TrackerParams,
            entry="finetuned_callbacks.tracker:create",
        )
    )
    register.callback(
        Callback(
            name="checkpoint",
            summary="Keep the best and the newest checkpoints and delete the others.",
            params=CheckpointParams,
            entry="finetuned_callbacks.checkpoint:create",
        )
    )
