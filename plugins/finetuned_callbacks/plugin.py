"""The declarations of the callbacks. The daemon imports this module: no torch."""

from __future__ import annotations

from finetuned_callbacks import rows
from finetuned_callbacks.params import CheckpointParams, TrackerParams, ValidationParams
from finetuned_sdk import Callback, Host, Registry, hookimpl


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the three callbacks."""
    register.callback(
        Callback(
            name="validation",
            summary="Answer held-out rows before, during and after training, score the answers and keep samples.",
            params=ValidationParams,
            entry="finetuned_callbacks.validation:create",
            check=check_validation,
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


def check_validation(params: ValidationParams, host: Host) -> None:  # noqa: ARG001 - the signature is the contract's
    """Refuse held-out rows that cannot be read or asked. They are few, so they are all read."""
    rows.load(params.dataset, params.limit)
