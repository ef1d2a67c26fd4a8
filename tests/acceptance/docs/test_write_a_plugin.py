"""docs/how-to/write-a-plugin.md, followed as its reader would: typed, installed, tested and run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon
from tests.third_party import installed
from tests.unit.docs import pages

from finetuned.skeleton import names, writing
from finetuned_sdk.testing import RecordingContext

PAGE = pages.DOCS / "how-to" / "write-a-plugin.md"
NAME = names.PluginName("byte-lm")
INSTALL = "python -m pip install --editable '.[dev]'"


def test_the_files_on_the_page_are_those_that_are_written() -> None:
    files = writing.render(NAME)
    declaration, rows, work, test, _ = pages.blocks(PAGE, "python")
    (project,) = pages.blocks(PAGE, "toml")
    assert declaration == files["finetuned_byte_lm/plugin.py"]
    assert rows == files["finetuned_byte_lm/data.py"]
    assert work == files["finetuned_byte_lm/trainer.py"]
    assert test == files["tests/test_trainer.py"]
    assert project == files["pyproject.toml"]


def test_its_listing_names_each_file_that_is_written() -> None:
    root, *lines = pages.blocks(PAGE, "")[0].splitlines()
    assert root == f"{NAME.distribution}/"
    assert sorted(line.split()[0] for line in lines) == list(writing.render(NAME))


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_what_its_reader_types_does_what_the_page_says(tmp_path: Path) -> None:
    before, after = ([line.removeprefix("$ ") for line in block.splitlines()] for block in typed())
    site, here = tmp_path / "site", tmp_path
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("python", "finetune"):  # those of the daemon's environment
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {RUN[name]} "$@"\n')
        (commands / name).chmod(0o755)
    path = {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}

    def type_in(line: str, **environment: str) -> str:
        done = subprocess.run(
            shlex.split(line),
            cwd=here,
            env=installed.environment(site, **path, **environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    said: dict[str, str] = {}
    for line in before:
        if line == INSTALL:  # not into the environment that runs the tests, and without a network
            installed.install(here, site)
        elif line.startswith("cd "):
            here /= line.removeprefix("cd ")
        else:
            said[line] = type_in(line)
    assert " passed" in said["python -m pytest"]
    (row,) = (line for line in said["finetune plugins"].splitlines() if line.startswith("byte-lm"))
    assert row.split()[1:] == ["loaded", "finetuned_byte_lm.plugin"]

    with Daemon(PYTHONPATH=installed.search_path(site)) as daemon:
        daemon.start()
        for line in after:
            said[line] = type_in(line, FINETUNED_SOCKET=str(daemon.socket))
        (job,) = daemon.ok("GET", "/v1/jobs")["data"]
        assert (job["kind"], job["state"], job["result"]["steps"]) == ("byte-lm", "succeeded", 200)


#: what stands for a command that the page's reader has on the path
RUN = {"python": "", "finetune": "-m finetuned.cli.main"}


def typed() -> tuple[str, str]:
    """What is typed before the daemon's next start, and after it."""
    before, after = pages.blocks(PAGE, "console")
    assert INSTALL in before
    return before, after


@pytest.mark.torch
def test_its_callback_advises_once_the_loss_stays_where_it_was(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    page: dict[str, Any] = {"__name__": "finetuned_byte_lm.patience"}
    code = compile(pages.blocks(PAGE, "python")[-1], str(PAGE), "exec", dont_inherit=True)
    exec(code, page)
    ctx = RecordingContext(tmp_path)
    params = page["PatienceParams"]
    params.model_rebuild(_types_namespace=page)
    callback = page["create"](ctx, params(steps=10))
    arguments = TrainingArguments(output_dir=str(tmp_path))
    for step, loss in ((10, 2.0), (20, 1.0), (25, 1.5), (30, 1.2), (35, 1.2)):
        callback.on_log(arguments, TrainerState(global_step=step), TrainerControl(), logs={"loss": loss})
    assert [advice["setting"] for advice in ctx.of_type("advice")] == ["learning_rate"]
