"""The plugin that ``finetune plugins new`` writes is clean, passes its own tests, and works once it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import running
from tests.third_party import installed

from finetuned.skeleton import writing
from finetuned.skeleton.names import LONGEST, PluginName

NAMES = ["a", "byte-lm", "class", ("x-" * LONGEST)[: LONGEST - 1], "x" * LONGEST]
#: strict as the plugin's own settings are, but without the minute that torch takes to be looked through
MYPY = """\
[mypy]
strict = True
mypy_path = {path}
[mypy-torch.*,safetensors.*]
follow_imports = skip
ignore_missing_imports = True
"""


def ran(root: Path, *command: str) -> str:
    """What a command printed that succeeded in the plugin's directory."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        env=installed.environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_it_is_clean_and_formatted_by_its_own_settings_whatever_its_name(tmp_path: Path, name: str) -> None:
    root = writing.write(PluginName.parse(name), tmp_path)
    ran(root, "ruff", "check", "--no-cache", ".")
    ran(root, "ruff", "format", "--no-cache", "--check", ".")


def test_its_types_are_strict(tmp_path: Path) -> None:
    root = writing.write(PluginName("byte-lm"), tmp_path)
    settings = tmp_path / "mypy.ini"
    settings.write_text(MYPY.format(path=installed.search_path(root).replace(os.pathsep, ",")), "utf-8")
    ran(root, "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path / "cache"), ".")


@pytest.mark.torch
def test_its_own_tests_pass_without_a_warning(tmp_path: Path) -> None:
    root = writing.write(PluginName("byte-lm"), tmp_path)
    printed = ran(root, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio")
    assert "4 passed" in printed


@pytest.mark.torch
@pytest.mark.timeout(240)
def test_installed_it_trains_on_a_daemon_and_refuses_what_cannot_work(tmp_path: Path) -> None:
    root = writing.write(PluginName("byte-lm"), tmp_path)
    site = installed.install(root, tmp_path / "site")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"txt": "not so"}\n', "utf-8")
    with running(PYTHONPATH=installed.search_path(site)) as daemon:
        job = daemon.wait_for(daemon.submit("byte-lm", dataset=str(root / "sample.jsonl"), steps=40))
        assert (job["state"], job["result"]["steps"]) == ("succeeded", 40)
        assert job["audits"][0]["rows"] == 5
        (artifact,) = job["artifacts"]
        assert Path(artifact["path"]).name == "model.safetensors"

        refused = daemon.wait_for(daemon.submit("byte-lm", dataset=str(bad)))
        assert (refused["state"], refused["error"]["code"]) == ("failed", "bad_dataset")
        assert "row 2" in refused["error"]["message"]

        request = {"kind": "byte-lm", "params": {"dataset": str(tmp_path / "none.jsonl")}}
        status, answer = daemon.request("POST", "/v1/jobs", request)
        assert (status, answer["error"]["param"]) == (400, "params.dataset")
        assert "correct the path" in answer["error"]["message"]
