from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest

from finetuned_callbacks import tracker_packages
from finetuned_callbacks.params import TrackerName, TrackerParams
from finetuned_sdk import JobError
from finetuned_sdk.testing import RecordingContext

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", get_args(TrackerName))
def test_a_tracker_that_is_not_installed_is_refused_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName
) -> None:
    from finetuned_callbacks import tracker

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(JobError, match=f"pip install {name}") as caught:
        tracker.create(RecordingContext(tmp_path), TrackerParams(report_to=name))
    assert caught.value.code == "missing_package"


def test_every_tracker_is_known_to_transformers() -> None:
    from transformers.integrations import integration_utils

    assert set(tracker_packages.MODULES) == set(get_args(TrackerName))
    assert set(tracker_packages.MODULES) <= set(integration_utils.INTEGRATION_TO_CALLBACK)


def test_the_run_bears_the_jobs_name_and_its_files_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from transformers import TrainingArguments
    from transformers.integrations import integration_utils

    from finetuned_callbacks import tracker

    class Integration:
        def __init__(self) -> None:
            self.directory = Path(os.environ["TENSORBOARD_LOGGING_DIR"])

        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.run = (args.run_name, args.project)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.directory.mkdir()
            (self.directory / "events").write_text("x")

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Integration)
    ctx = RecordingContext(tmp_path, metadata={"name": "nightly"})
    made = tracker.create(ctx, TrackerParams(report_to="tensorboard", project="bakery"))
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    made.on_init_end(args, None, None)
    made.on_train_end(args, None, None)
    assert made.run == ("nightly", "bakery")
    assert [(fact["name"], fact["kind"]) for fact in ctx.of_type("artifact")] == [
        ("tensorboard", "tensorboard")
    ]


def test_the_entity_and_the_tags_reach_wandb_where_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from transformers.integrations import integration_utils

    from finetuned_callbacks import tracker

    class Integration:
        pass

    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Integration)
    params = TrackerParams(report_to="wandb", project="bakery", entity="bakers", tags=["rye", "night"])
    tracker.create(RecordingContext(tmp_path), params)
    found = [os.environ[name] for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_TAGS")]
    assert found == ["bakery", "bakers", "rye,night"]


def test_an_entity_for_another_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match="entity and tags are wandb's"):
        TrackerParams(report_to="mlflow", entity="bakers")
