"""The plugin of docs/how-to/write-a-plugin.md, as its reader would write it, tested and run."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import running
from tests.unit.docs import pages

from finetuned import plugins
from finetuned_sdk.testing import RecordingContext

PAGE = pages.DOCS / "how-to" / "write-a-plugin.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The page's files in their places."""
    declaration, work, test, _ = pages.blocks(PAGE, "python")
    root = tmp_path / "finetuned-words"
    for name, text in {
        "pyproject.toml": pages.blocks(PAGE, "toml")[0],
        "finetuned_words/__init__.py": "",
        "finetuned_words/plugin.py": declaration,
        "finetuned_words/worker.py": work,
        "tests/test_words.py": test,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


def search_path(package: Path) -> str:
    own = [str(pages.ROOT / folder) for folder in ("daemon", "events", "plugins")]
    return os.pathsep.join([str(package), *own])


def test_its_own_tests_pass(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=package,
        env={**os.environ, "PYTHONPATH": search_path(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_its_entry_point_names_a_module_that_declares_the_kind(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    monkeypatch.syspath_prepend(str(package))
    registry, reports = plugins.load({plugins.EXTRA: points["finetuned"]["words"]})
    assert "words" in registry.job_kinds
    assert [report.reason for report in reports if report.status == "broken"] == []


def test_a_daemon_runs_the_job_and_refuses_one_whose_file_is_not_there(package: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("to be or\nnot to be to\n", "utf-8")
    with running(FINETUNED_EXTRA_PLUGINS="finetuned_words.plugin", PYTHONPATH=search_path(package)) as daemon:
        job = daemon.wait_for(daemon.submit("words", dataset=str(text), top=2))
        assert (job["state"], job["result"]["words"]) == ("succeeded", 7)
        body = {"kind": "words", "params": {"dataset": str(tmp_path / "none")}}
        status, answer = daemon.request("POST", "/v1/jobs", body)
        assert (status, answer["error"]["param"]) == (400, "params.dataset")
        assert "correct the path" in answer["error"]["message"]


@pytest.mark.torch
def test_its_callback_advises_once_the_loss_stays_where_it_was(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    page: dict[str, Any] = {"__name__": "finetuned_words.patience"}
    code = compile(pages.blocks(PAGE, "python")[3], str(PAGE), "exec", dont_inherit=True)
    exec(code, page)
    ctx = RecordingContext(tmp_path)
    params = page["PatienceParams"]
    params.model_rebuild(_types_namespace=page)
    callback = page["create"](ctx, params(steps=10))
    arguments = TrainingArguments(output_dir=str(tmp_path))
    for step, loss in ((10, 2.0), (20, 1.0), (25, 1.5), (30, 1.2), (35, 1.2)):
        callback.on_log(arguments, TrainerState(global_step=step), TrainerControl(), logs={"loss": loss})
    assert [advice["setting"] for advice in ctx.of_type("advice")] == ["learning_rate"]
