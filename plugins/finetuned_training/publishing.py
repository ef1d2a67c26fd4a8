"""What comes out of a training: the model with tokenizer and card, registered, and the job's result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetuned_sdk import WorkerContext, phases
from finetuned_training import model_card, step_metrics
from finetuned_training.metering import MeteredTrainer
from finetuned_training.model import merge_adapter
from finetuned_training.params import TrainingParams

Figures = Mapping[str, float | None]


def publish(
    ctx: WorkerContext,
    params: TrainingParams,
    trainer: MeteredTrainer,
    *,
    how: model_card.Method,
    rows: int,
    dataset_sha256: str | None,
    figures: Figures | None = None,
) -> None:
    """Save the model, register it, and set the job's result; ``figures`` are told beside the losses."""
    ctx.phase(phases.SAVING)
    state = trainer.state
    best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    told = {
        "train_loss": mean_loss(state.log_history),
        "eval_loss": state.best_metric if best else last(state.log_history, "eval_loss"),
        **(figures or {}),
    }
    lineage = model_card.Lineage(
        job_id=ctx.job_id,
        base_model=params.model,
        adapter=params.adapter,
        method=params.method,
        dataset=params.dataset,
        dataset_sha256=dataset_sha256,
        dataset_rows=rows,
        params=params.model_dump(mode="json", exclude_defaults=True),
        libraries=model_card.installed_libraries(),
    )
    name = params.output_name or f"{Path(params.model).name}-{ctx.job_id}"
    kind = "full" if params.method == "full" else "adapter"
    directory = ctx.artifact_dir / ("model" if kind == "full" else "adapter")

    def register(path: Path, name: str, kind: str) -> None:
        trainer.processing_class.save_pretrained(path)
        (path / "README.md").write_text(model_card.render(name, kind, how, lineage, told), encoding="utf-8")
        ctx.artifact(path, kind=kind)
        ctx.model(path, name=name, base=params.model, kind=kind, **lineage.as_dict())

    trainer.save_model(str(directory))
    # A pickle; the card says the same in plain text.
    (directory / "training_args.bin").unlink(missing_ok=True)
    register(directory, name, kind)
    if params.merge_adapter:
        merged = ctx.artifact_dir / "merged"
        merge_adapter(ctx.model_path("model"), directory, merged, params)
        register(merged, f"{name}-merged", "merged")

    step_metrics.publish(ctx, state.log_history)
    ctx.result(
        **told,
        model=name,
        adapter_path=str(directory) if kind == "adapter" else None,
        model_path=str(directory) if kind == "full" else None,
        merged_path=str(merged) if params.merge_adapter else None,
        steps=state.global_step,
        best_step=state.best_global_step if best else None,
    )


def held_out(trainer: MeteredTrainer, names: Mapping[str, str]) -> dict[str, float | None]:
    """How held-out rows fared before the first step, and with the model that is published: ``eval_NAME_before``, ``_after``.

    ``names`` has what a figure is called there, and by the trainer; one that no evaluation has is left out.
    """
    state = trainer.state
    logs = [log for log in state.log_history if "eval_loss" in log]
    if len(logs) < 2:
        return {}
    best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    newest = logs[-1]
    published = (
        next((log for log in logs if log["step"] == state.best_global_step), newest) if best else newest
    )
    return {
        f"eval_{name}_{when}": log.get(f"eval_{figure}")
        for name, figure in names.items()
        for when, log in (("before", logs[0]), ("after", published))
        if f"eval_{figure}" in logs[0]
    }


def mean_loss(log_history: list[dict[str, float]]) -> float | None:
    """The mean loss over all steps, also those before a resume; each log covers the steps since the one before."""
    logs = [(log["step"], log["loss"]) for log in log_history if "loss" in log]
    starts = [0, *(step for step, _ in logs)]
    total = sum(loss * (step - start) for (step, loss), start in zip(logs, starts, strict=False))
    return total / logs[-1][0] if logs else None


def last(log_history: list[dict[str, float]], name: str) -> float | None:
    """The newest value of a figure in the trainer's log."""
    return next((log[name] for log in reversed(log_history) if name in log), None)
