"""One suite for every context that a trainer may be given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import AuditReport, JobError, StopRequest, WorkerContext, manifest
from finetuned_sdk.bundle import Bundle
from finetuned_sdk.context import PROGRESS_FIELDS, CallbackSpec
from finetuned_sdk.errors import PluginError
from finetuned_sdk.manifest import ManifestError
from finetuned_sdk.spool import Fact, SpoolWriter, parse
from finetuned_sdk.testing import RecordingContext
from finetuned_sdk.worker_context import Context


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setting:
    """A context and what it has reported."""

    ctx: WorkerContext
    clock: Clock
    facts: Callable[[], list[Fact]]
    stop: Callable[[str, bool], None]

    def of_type(self, fact_type: str) -> list[Mapping[str, Any]]:
        return [fact.data for fact in self.facts() if fact.type == fact_type]

    def types(self) -> list[str]:
        return [fact.type for fact in self.facts()]


CALLBACK = CallbackSpec("echo", f"{__name__}:make_callback", {"x": 1})


def make_callback(ctx: WorkerContext, params: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return ctx.job_id, params


def recording(directory: Path) -> Setting:
    clock = Clock()
    ctx = RecordingContext(
        directory,
        params={"model": "tiny", "teacher": "big", "steps": 3},
        models={"model": "/models/tiny"},
        callbacks=[CALLBACK],
        resume_from=directory / "old",
        progress_interval=0.1,
        clock=clock,
    )
    return Setting(ctx, clock, lambda: ctx.facts, lambda why, save: ctx.request_stop(why, checkpoint=save))


def real(directory: Path) -> Setting:
    spec = Bundle(recording(directory).ctx.work_dir.parent).read_spec()
    bundle = Bundle(directory / "real")
    bundle.create(spec)
    clock = Clock()
    ctx = Context(bundle, spec, SpoolWriter(bundle.spool_path), clock=clock, progress_interval=0.1)

    def facts() -> list[Fact]:
        lines, _ = parse(bundle.spool_path.read_bytes(), after=0)
        return [line for line in lines if isinstance(line, Fact)]

    return Setting(ctx, clock, facts, lambda why, save: ctx.request_stop(why, checkpoint=save))


@pytest.fixture(params=[real, recording])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    made: Setting = request.param(tmp_path)
    return made


def make_directory(parent: Path, name: str = "made", content: str = "weights") -> Path:
    directory = parent / name
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "w.bin").write_text(content)
    return directory


def test_the_context_says_what_the_job_is(setting: Setting, tmp_path: Path) -> None:
    ctx = setting.ctx
    assert (ctx.job_id, ctx.attempt, ctx.device_ids) == ("job-test", 1, ("cpu:0",))
    assert ctx.metadata["kind"] == "test"
    assert ctx.resume_from == tmp_path / "old"
    assert not ctx.allow_remote_code
    assert ctx.work_dir.is_dir()
    assert ctx.artifact_dir.is_dir()


def test_a_model_reference_is_resolved_or_passed_on(setting: Setting) -> None:
    assert setting.ctx.model_path("model") == "/models/tiny"
    assert setting.ctx.model_path("teacher") == "big"
    with pytest.raises(JobError, match="no model in its parameter 'student'"):
        setting.ctx.model_path("student")
    with pytest.raises(JobError, match="'steps'"):
        setting.ctx.model_path("steps")


def test_a_progress_report_has_every_field(setting: Setting) -> None:
    setting.ctx.progress(current_step=1, total_steps=4, loss=2.5, router_loss=0.1)
    (report,) = setting.of_type("progress")
    assert set(PROGRESS_FIELDS) | {"router_loss"} == set(report)
    assert (report["progress"], report["loss"], report["router_loss"]) == (25.0, 2.5, 0.1)
    assert report["eval_loss"] is None
    assert report["rss_gb"] > 0


def test_figures_that_are_no_numbers_become_null(setting: Setting) -> None:
    setting.ctx.progress(current_step=1, total_steps=None, loss=math.nan, grad_norm=math.inf)
    (report,) = setting.of_type("progress")
    assert (report["loss"], report["grad_norm"], report["progress"], report["eta_seconds"]) == (None,) * 4
    json.dumps(report, allow_nan=False)


def test_the_newest_of_many_reports_is_written_ten_times_a_second(setting: Setting) -> None:
    for step in range(1, 101):
        setting.clock.now += 0.01
        setting.ctx.progress(current_step=step, total_steps=1000)
    steps = [report["current_step"] for report in setting.of_type("progress")]
    assert 9 <= len(steps) <= 11
    assert steps == sorted(steps)


def test_the_final_report_is_written_at_once_and_replaces_what_waits(setting: Setting) -> None:
    for step in (1, 2, 3):
        setting.ctx.progress(current_step=step, total_steps=3, final=step == 3)
    assert [report["current_step"] for report in setting.of_type("progress")] == [1, 3]


def test_a_job_may_ask_for_fewer_reports_but_not_for_more(setting: Setting) -> None:
    for step in range(1, 101):
        setting.clock.now += 1 / 16
        setting.ctx.progress(current_step=step, total_steps=None, interval=1.0 if step <= 60 else 0.0)
    steps = [report["current_step"] for report in setting.of_type("progress")]
    assert steps == [1, 17, 33, 49, *range(61, 101, 2)]


@pytest.mark.parametrize("what", ["checkpoint", "evaluation", "phase"])
def test_a_waiting_report_is_written_before_what_follows_it(setting: Setting, what: str) -> None:
    ctx = setting.ctx
    ctx.progress(current_step=1, total_steps=3)
    ctx.progress(current_step=2, total_steps=3)
    if what == "checkpoint":
        ctx.checkpoint(make_directory(ctx.work_dir), step=2, metrics={})
    elif what == "evaluation":
        ctx.evaluation("held_out", {"loss": 1.0}, step=2)
    else:
        ctx.phase("saving")
    assert setting.types() == ["progress", "progress", what]
    assert setting.of_type("progress")[1]["current_step"] == 2


def test_the_eta_follows_the_rate_of_the_last_minute(setting: Setting) -> None:
    for step in range(1, 11):  # slow: one step in 10 s
        setting.clock.now += 10
        setting.ctx.progress(current_step=step, total_steps=1000)
    slow = setting.of_type("progress")[-1]["eta_seconds"]
    for step in range(11, 91):  # fast: one a second
        setting.clock.now += 1
        setting.ctx.progress(current_step=step, total_steps=1000)
    assert slow == pytest.approx(9900)
    assert setting.of_type("progress")[-1]["eta_seconds"] == pytest.approx(910)


def test_the_eta_begins_anew_when_steps_go_back(setting: Setting) -> None:
    for step in (50, 60, 1):
        setting.clock.now += 1
        setting.ctx.progress(current_step=step, total_steps=100)
    assert [report["eta_seconds"] for report in setting.of_type("progress")] == [None, 4.0, None]


def test_a_checkpoint_is_moved_sealed_and_reported(setting: Setting) -> None:
    made = make_directory(setting.ctx.work_dir)
    path = setting.ctx.checkpoint(made, step=7, metrics={"loss": 1.5, "eval_loss": None})
    assert not made.exists()
    assert path.name == "checkpoint-7"
    assert setting.ctx.checkpoints == (path,)
    (fact,) = setting.of_type("checkpoint")
    assert fact == {"step": 7, "path": str(path), "bytes": 7, "metrics": {"loss": 1.5, "eval_loss": None}}


def test_two_checkpoints_of_one_step_are_both_kept(setting: Setting) -> None:
    for name in ("a", "b"):
        setting.ctx.checkpoint(make_directory(setting.ctx.work_dir, name), step=7, metrics={})
    assert [path.name for path in setting.ctx.checkpoints] == ["checkpoint-7", "checkpoint-7-2"]


def test_a_checkpoint_from_elsewhere_is_refused(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"made in ctx\.work_dir"):
        setting.ctx.checkpoint(make_directory(tmp_path), step=1, metrics={})


def test_the_only_complete_checkpoint_cannot_be_discarded(setting: Setting) -> None:
    ctx = setting.ctx
    paths = [ctx.checkpoint(make_directory(ctx.work_dir, str(n)), step=n, metrics={}) for n in (1, 2)]
    for path in paths:
        ctx.discard_checkpoint(path)
    assert ctx.checkpoints == (paths[1],)
    assert setting.of_type("checkpoint_discarded") == [{"path": str(paths[0])}]
    assert not paths[0].exists()


def test_a_published_artifact_lists_its_files(setting: Setting) -> None:
    path = make_directory(setting.ctx.artifact_dir, "adapter")
    setting.ctx.artifact(path, kind="adapter")
    setting.ctx.model(path, name="mine", base="tiny", kind="adapter", dataset="sha256:1")
    (artifact,) = setting.of_type("artifact")
    (model,) = setting.of_type("model")
    assert (artifact["name"], artifact["kind"], artifact["bytes"]) == ("adapter", "adapter", 7)
    assert [(file["path"], file["bytes"]) for file in artifact["files"]] == [("sub/w.bin", 7)]
    assert model == {
        "name": "mine",
        "path": str(path),
        "kind": "adapter",
        "base": "tiny",
        "lineage": {"dataset": "sha256:1"},
    }


def test_a_single_file_can_be_an_artifact(setting: Setting) -> None:
    path = setting.ctx.artifact_dir / "samples.jsonl"
    path.write_text("{}\n")
    setting.ctx.artifact(path, kind="samples")
    assert setting.of_type("artifact")[0]["files"][0]["path"] == "samples.jsonl"


def test_an_artifact_with_a_link_is_refused(setting: Setting) -> None:
    path = make_directory(setting.ctx.artifact_dir)
    (path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ManifestError, match="is a link"):
        setting.ctx.artifact(path, kind="adapter")
    assert setting.facts() == []


def test_a_model_must_be_published_first(setting: Setting) -> None:
    path = make_directory(setting.ctx.artifact_dir)
    with pytest.raises(JobError, match=r"call ctx\.artifact on it"):
        setting.ctx.model(path, name="mine", base=None, kind="adapter")


def test_advice_audit_and_evaluation_are_reported_as_given(setting: Setting) -> None:
    setting.ctx.advice("dataloader_num_workers", "Raise it.", data_wait_fraction=0.4)
    setting.ctx.audit(AuditReport(dataset="d.jsonl", format="messages", rows=3, warnings=("short",)))
    setting.ctx.evaluation("held_out", {"accuracy": 0.5})
    assert setting.of_type("advice") == [
        {
            "setting": "dataloader_num_workers",
            "message": "Raise it.",
            "figures": {"data_wait_fraction": 0.4},
        }
    ]
    report = setting.of_type("audit")[0]["report"]
    assert (report["rows"], report["warnings"]) == (3, ["short"])
    assert setting.of_type("evaluation") == [{"name": "held_out", "metrics": {"accuracy": 0.5}, "step": None}]


class Figure:
    """A number of another library."""

    def __index__(self) -> int:
        return 3

    def item(self) -> float:
        return 0.5


WRONG: dict[str, Callable[[Any], object]] = {
    "A phase must be text": lambda ctx: ctx.phase(3),
    "The setting of an advice must be text": lambda ctx: ctx.advice(None, "m"),
    "The message of an advice must be text": lambda ctx: ctx.advice("s", b"m"),
    "The figure 'rows' must be a number": lambda ctx: ctx.advice("s", "m", rows=["a row"]),
    "The name of an evaluation must be text": lambda ctx: ctx.evaluation(1, {}),
    "The metric 'rows' must be a number": lambda ctx: ctx.evaluation("e", {"rows": "a row"}),
    "step must be a whole number": lambda ctx: ctx.evaluation("e", {}, step="1"),
    "current_step must be a whole number": lambda ctx: ctx.progress(current_step=1.5, total_steps=2),
    "total_steps must be a whole number": lambda ctx: ctx.progress(current_step=1, total_steps="2"),
    "The kind of an artifact must be text": lambda ctx: ctx.artifact(ctx.artifact_dir / "made", kind=1),
    "The metric 'loss' must be a number": lambda ctx: ctx.checkpoint(
        make_directory(ctx.work_dir), step=1, metrics={"loss": "low"}
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_report_of_the_wrong_type_is_refused_where_it_is_made(setting: Setting, message: str) -> None:
    make_directory(setting.ctx.artifact_dir)
    with pytest.raises(PluginError, match=message):
        WRONG[message](setting.ctx)
    assert setting.facts() == []
    assert setting.ctx.checkpoints == ()


def test_numbers_of_other_libraries_are_taken_as_they_are(setting: Setting) -> None:
    ctx: Any = setting.ctx
    ctx.evaluation("e", {"loss": Figure()}, step=Figure())
    ctx.progress(current_step=Figure(), total_steps=Figure(), loss=Figure(), note=["x"] * 1000, final=True)
    assert setting.of_type("evaluation") == [{"name": "e", "metrics": {"loss": 0.5}, "step": 3}]
    (report,) = setting.of_type("progress")
    assert (report["current_step"], report["loss"]) == (3, 0.5)
    assert len(report["note"].encode()) <= 200


def test_long_texts_are_cut(setting: Setting) -> None:
    setting.ctx.phase("ä" * 10_000)
    setting.ctx.advice("s", "m" * 100_000)
    assert len(setting.of_type("phase")[0]["phase"].encode()) <= 200
    assert len(setting.of_type("advice")[0]["message"].encode()) <= 4096


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", "a\nb", "..", " a", "x" * 201, 3, None])
def test_a_model_is_not_registered_under_a_name_that_is_none(setting: Setting, name: Any) -> None:
    path = make_directory(setting.ctx.artifact_dir)
    setting.ctx.artifact(path, kind="adapter")
    with pytest.raises(PluginError, match="is no name for a model"):
        setting.ctx.model(path, name=name, base=None, kind="adapter")
    assert setting.of_type("model") == []


@pytest.mark.parametrize("name", ["Llama-3.2 (copy)", ".hidden", "modèle", "x" * 200])
def test_a_model_keeps_an_unusual_name(setting: Setting, name: str) -> None:
    path = make_directory(setting.ctx.artifact_dir)
    setting.ctx.artifact(path, kind="adapter")
    setting.ctx.model(path, name=name, base=None, kind="adapter")
    assert setting.of_type("model")[0]["name"] == name


@pytest.mark.parametrize(("files", "length"), [(1001, 4), (300, 250)])
def test_an_artifact_of_very_many_files_or_long_names_leaves_them_to_its_manifest(
    setting: Setting, files: int, length: int
) -> None:
    path = setting.ctx.artifact_dir / "many"
    path.mkdir()
    for number in range(files):
        (path / f"{number:0{length}}").write_text("x")
    setting.ctx.artifact(path, kind="shards")
    (fact,) = setting.of_type("artifact")
    assert (fact["files"], fact["bytes"]) == ([], files)
    assert len(manifest.read(path).files) == files


def test_a_stop_request_is_seen_with_its_reason(setting: Setting) -> None:
    assert setting.ctx.stop_requested is None
    setting.stop("pause", True)
    assert setting.ctx.stop_requested == StopRequest("pause", checkpoint=True)


def test_the_callbacks_of_the_job_are_made_in_order(setting: Setting) -> None:
    assert setting.ctx.callbacks == (CALLBACK,)
    assert setting.ctx.load_callbacks() == [("job-test", {"x": 1})]
