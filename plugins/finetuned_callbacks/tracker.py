"""``tracker``: report to an experiment tracker through transformers' own integrations."""

from __future__ import annotations

import os
from typing import Any, Final

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from finetuned_callbacks import tracker_packages
from finetuned_callbacks.params import TrackerParams
from finetuned_sdk import WorkerContext

# What an integration reads from the environment of this worker, which runs one job.
PROJECT_VARIABLE: Final[dict[str, str]] = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME"}


def create(ctx: WorkerContext, params: TrackerParams) -> Any:
    """The tracker's callback. Raises ``JobError`` that names the package if it is not installed."""
    tracker_packages.require(params.report_to)
    if params.project is not None and params.report_to in PROJECT_VARIABLE:
        os.environ[PROJECT_VARIABLE[params.report_to]] = params.project
    if params.entity is not None:
        os.environ["WANDB_ENTITY"] = params.entity
    if params.tags:
        os.environ["WANDB_TAGS"] = ",".join(params.tags)
    if params.tracking_uri is not None and params.report_to == "mlflow":
        os.environ["MLFLOW_TRACKING_URI"] = params.tracking_uri
    if params.report_to == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(ctx.artifact_dir / "tensorboard")
    (integration,) = integration_utils.get_reporting_integration_callbacks([params.report_to])
    return _for_job(integration, ctx, params)


def _for_job(integration: type[Any], ctx: WorkerContext, params: TrackerParams) -> Any:
    """The integration, told of the job through the training arguments, where transformers looks."""

    class Tracker(integration):
        """An integration that names its run after the job and publishes what it wrote beside it."""

        def on_init_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            """Name run and project before the integration reads them."""
            args.run_name = params.run_name or args.run_name or str(ctx.metadata.get("name") or ctx.job_id)
            if params.project is not None and hasattr(args, "project"):
                args.project = params.project
            super().on_init_end(args, state, control, **kwargs)

        def on_train_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            """Let the integration finish its files, then publish them."""
            super().on_train_end(args, state, control, **kwargs)
            written = ctx.artifact_dir / "tensorboard"
            if params.report_to == "tensorboard" and written.is_dir():
                ctx.artifact(written, kind="tensorboard")

    return Tracker()
