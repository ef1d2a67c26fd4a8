"""The declarations of the callbacks. The daemon imports this module: no torch."""

from __future__ import annotations

from typing import Final

from finetuned_callbacks import rows, tracker_packages
from finetuned_callbacks.params import CheckpointParams, TrackerParams, ValidationParams
from finetuned_sdk import Callback, Host, Registry, hookimpl

CHECKED_BYTES: Final = 4 << 20


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
            dataset_params=("dataset",),
        )
    )
    register.callback(
        Callback(
            name="tracker",
            summary="Report to W&B, MLflow, TensorBoard or trackio.",
            params=TrackerParams,
            entry="finetuned_callbacks.tracker:create",
            check=check_tracker,
            path_params=("tracking_uri",),
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


def check_validation(params: ValidationParams, host: Host) -> None:
    """Refuse held-out rows that cannot be read or asked, as far as the first of them show it.

    The daemon is many jobs', so it reads a few megabytes; what comes after them is the worker's to refuse.
    """
    rows.load(host.dataset(params.dataset), params.limit, read_at_most=CHECKED_BYTES)


def check_tracker(params: TrackerParams, host: Host) -> None:
    """Refuse a tracker that is not installed."""
    del host
    tracker_packages.require(params.report_to)
