"""``metrics``, ``checkpoints``, ``artifacts``, ``export``: what a job reports and leaves."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from rich.console import Console
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned import wire
from finetuned.cli import metrics

LOSS: wire.Series = {
    "name": "loss", "attempt": None, "steps": [1, 2, 3],
    "times": [f"2026-11-22T12:00:0{n}.000000Z" for n in (1, 2, 3)], "values": [3.0, 2.0, 0.125], "total": 3,
}  # fmt: skip
EVAL: wire.Series = {**LOSS, "name": "eval_loss", "values": [3.5, 2.5, 1.5]}
NORM: wire.Series = {**LOSS, "name": "grad_norm"}


def curves(*series: wire.Series, seq: int = 9) -> wire.Metrics:
    names = ["loss", "eval_loss", "grad_norm"]
    return {
        "object": "metrics",
        "job": "job-1",
        "seq": seq,
        "names": names,
        "more": False,
        "series": [*series],
    }


# ---- metrics -------------------------------------------------------------------------------------------------


def test_in_a_pipe_each_point_is_a_line(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = curves(LOSS, EVAL)
    lines = finetune("metrics", "job-1").out.splitlines()
    assert lines[0] == "loss\t-\t1\t2026-11-22T12:00:01.000000Z\t3.0"
    assert [line.split("\t")[0] for line in lines] == ["loss"] * 3 + ["eval_loss"] * 3


def test_what_is_asked_for_is_passed_on(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = curves(LOSS, EVAL)
    outcome = finetune(
        "metrics", "job-1", "--names", "loss+eval_loss,grad_norm", "--points", "50", "--attempts", "--json"
    )
    assert outcome.json["series"][0]["values"] == [3.0, 2.0, 0.125]
    path = daemon.requests[-1][1]
    assert path == "/v1/jobs/job-1/metrics?names=loss,eval_loss,grad_norm&points=50&attempts=all"


def test_the_past_of_a_curve_is_asked_for_and_not_watched(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = curves(LOSS)
    assert finetune("metrics", "job-1", "--at", "12", "--json").code == 0
    assert daemon.requests[-1][1] == "/v1/jobs/job-1/metrics?at=12"
    outcome = finetune("metrics", "job-1", "--at", "12", "--watch")
    assert outcome.code == 2
    assert "leave --watch or --at out" in outcome.err


def test_a_curve_that_is_not_there_is_refused_with_the_nearest(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = curves()
    outcome = finetune("metrics", "job-1", "--names", "los")
    assert outcome.code == 2
    assert "Did you mean 'loss'" in outcome.err
    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = {**curves(), "names": []}
    assert '"code": "unknown_name"' in finetune("metrics", "job-1", "--names", "los", "--json").err
    assert "It has none yet." in finetune("metrics", "job-1", "--names", "loss").err


def drawn(found: wire.Metrics, *groups: tuple[str, ...], width: int = 60, plain: bool = False) -> str:
    out = Console(width=width, height=40, color_system=None, legacy_windows=False)
    with out.capture() as captured:
        out.print(metrics.charts(found, groups, width=width, height=40, plain=plain))
    return captured.get()


def test_the_usual_curves_are_drawn_and_the_others_named() -> None:
    shown = drawn(curves(LOSS, EVAL, NORM))
    assert "━ loss 0.125   ━ eval_loss 1.5" in shown
    assert "also: grad_norm" in shown
    assert "⠉" in shown or "⡀" in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_named_curves_share_a_chart_if_they_are_joined() -> None:
    shown = drawn(curves(LOSS, NORM), ("loss", "grad_norm"), plain=True)
    assert "* loss 0.125   * grad_norm 0.125" in shown
    assert shown.count("┤") == 0
    assert "also: eval_loss" in shown


def test_without_the_usual_curves_the_first_are_drawn() -> None:
    found = {**curves(NORM), "names": ["grad_norm"]}
    assert "━ grad_norm 0.125" in drawn(found)  # type: ignore[arg-type]
    assert "no figures yet" in drawn({**curves(), "names": []})


def test_each_attempts_curve_is_named_by_it() -> None:
    shown = drawn(curves({**LOSS, "attempt": 1}, {**LOSS, "attempt": 2}))
    assert "loss attempt 1" in shown
    assert "loss attempt 2" in shown


def test_watching_shows_each_point_once_and_ends_with_the_job(
    daemon: FakeDaemon, finetune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LOOK_EVERY", 0.001)
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    looks = []

    def look() -> wire.Metrics:
        looks.append(1)
        if len(looks) == 3:
            daemon.jobs["job-1"]["state"] = "succeeded"
        head: wire.Series = {
            **LOSS, "steps": LOSS["steps"][: len(looks)], "times": LOSS["times"][: len(looks)],
            "values": LOSS["values"][: len(looks)],
        }  # fmt: skip
        return curves(head, seq=min(len(looks), 3))

    daemon.answers["GET", "/v1/jobs/job-1/metrics"] = look
    outcome = finetune("metrics", "job-1", "--watch")
    assert [line.split("\t")[2] for line in outcome.out.splitlines()] == ["1", "2", "3"]
    daemon.jobs["job-1"]["state"] = "running"
    looks.clear()
    assert [each["seq"] for each in finetune("metrics", "job-1", "--watch", "--json").lines] == [1, 2, 3]


# ---- checkpoints and artifacts ---------------------------------------------------------------------------------

CHECKPOINT: wire.CheckedCheckpoint = {
    "validity": "complete", "problem": None, "resumes": True, "id": "1/checkpoint-50",
    "object": "checkpoint", "step": 50, "attempt": 1, "path": "/x/checkpoint-50",
    "bytes": 12_000_000, "metrics": {"loss": 0.25}, "created_at": "2026-11-22T12:00:00.000000Z",
}  # fmt: skip
ADAPTER: wire.Artifact = {
    "id": "adapter", "object": "artifact", "name": "adapter", "kind": "adapter", "attempt": 1,
    "path": "/x/adapter", "bytes": 11, "created_at": "2026-11-22T12:00:00.000000Z",
}  # fmt: skip
FILES = {"config.json": b"{}", "sub/weights": b"012345678"}


def listing(*items: object) -> dict[str, object]:
    return {"object": "list", "data": [*items], "has_more": False, "next_after": None}


def publish(daemon: FakeDaemon, job: str = "job-1", *more: wire.Artifact) -> None:
    base = f"/v1/jobs/{job}/artifacts"
    daemon.answers["GET", base] = listing(ADAPTER, *more)
    files = [{"path": path, "bytes": len(data), "crc32": zlib.crc32(data)} for path, data in FILES.items()]
    daemon.answers["GET", f"{base}/adapter"] = {
        **ADAPTER, "files": files, "has_more": False, "next_after": None
    }  # fmt: skip
    for path, data in FILES.items():
        daemon.answers["GET", f"{base}/adapter/files/{path}"] = data


def test_checkpoints_are_listed(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/jobs/job-1/checkpoints"] = listing(CHECKPOINT)
    assert "12.0 MB" in finetune("checkpoints", "job-1").out
    assert "loss 0.25" in finetune("checkpoints", "job-1").out
    assert "complete, goes on here" in finetune("checkpoints", "job-1").out
    assert finetune("checkpoints", "job-1", "--json").json == {"data": [CHECKPOINT], "has_more": False}
    damaged = CHECKPOINT | {"validity": "damaged", "problem": "a.bin cannot be read", "resumes": False}
    daemon.answers["GET", "/v1/jobs/job-1/checkpoints"] = listing(damaged)
    assert "damaged: a.bin cannot be read" in finetune("checkpoints", "job-1", "--verify").out
    daemon.answers["GET", "/v1/jobs/job-1/checkpoints"] = listing()
    assert "no checkpoint" in finetune("checkpoints", "job-1").err


def test_artifacts_and_the_files_of_one_are_listed(daemon: FakeDaemon, finetune: Run) -> None:
    publish(daemon)
    assert "/x/adapter" in finetune("artifacts", "job-1").out
    assert finetune("artifacts", "job-1", "--json").json["data"] == [ADAPTER]
    shown = finetune("artifacts", "job-1", "adapter").out
    assert "sub/weights" in shown
    assert f"{zlib.crc32(b'{}'):08x}" in shown
    assert len(finetune("artifacts", "job-1", "adapter", "--attempt", "1", "--json").json["data"]) == 2


# ---- export ----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_a_jobs_artifact_comes_here_as_a_folder(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    publish(daemon)
    outcome = finetune("export", "job-1")
    assert (outcome.code, outcome.out) == (0, "adapter: 2 files, 11 B, checksums right.\n")
    assert found_in(here / "adapter") == FILES
    asked = len(daemon.requests)
    again = finetune("export", "job-1", "-o", "adapter", "--json")
    assert again.json["target"] == str(here / "adapter")
    assert not any("/files/" in path for _, path, _ in daemon.requests[asked:])


def test_a_model_is_exported_by_its_name(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    other: wire.Artifact = {**ADAPTER, "name": "merged", "id": "merged", "path": "/x/merged"}
    publish(daemon, "job-7", other)
    daemon.models.append({"id": "tiny", "job": "job-7", "path": "/x/adapter"})
    assert finetune("export", "tiny", "-o", "out").code == 0
    assert found_in(here / "out") == FILES


def test_a_model_that_no_job_made_says_where_it_is(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.models.append({"id": "base", "job": None, "path": "/models/base"})
    outcome = finetune("export", "base")
    assert outcome.code == 3
    assert "/models/base" in outcome.err


def test_of_several_artifacts_one_must_be_named(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    publish(daemon, "job-1", {**ADAPTER, "name": "merged", "id": "merged"})
    outcome = finetune("export", "job-1")
    assert outcome.code == 2
    assert "--artifact: adapter, merged" in outcome.err
    assert finetune("export", "job-1", "--artifact", "adapter").code == 0
    outcome = finetune("export", "job-1", "--artifact", "model")
    assert outcome.code == 3
    assert "It has adapter, merged." in outcome.err


def test_a_path_that_would_leave_the_folder_is_refused(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    publish(daemon)
    for path in ("../up", "/etc/passwd", "a/../../b", ""):
        evil = {"path": path, "bytes": 2, "crc32": 0}
        daemon.answers["GET", "/v1/jobs/job-1/artifacts/adapter"] = {
            **ADAPTER, "files": [evil], "has_more": False, "next_after": None
        }  # fmt: skip
        outcome = finetune("export", "job-1")
        assert outcome.code == 6
        assert "outside of adapter" in outcome.err
    assert list(here.iterdir()) == []


def test_a_target_that_is_a_file_is_refused(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    publish(daemon)
    (here / "adapter").write_text("mine")
    outcome = finetune("export", "job-1", "--json")
    assert outcome.code == 4
    assert "another place with -o" in outcome.err
    assert json.loads(outcome.err)["error"]["code"] == "target_exists"
    assert (here / "adapter").read_text() == "mine"


def test_a_place_that_is_no_place_is_a_sentence(daemon: FakeDaemon, finetune: Run, here: Path) -> None:
    publish(daemon)
    (here / "file").touch()
    outcome = finetune("export", "job-1", "-o", "file/below", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.err)["error"]["code"] == "os_error"
