"""What is done to make an environment for an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetuned.service.engine_environments import MakeEnvironment, plan
from finetuned.service.sources import Source
from finetuned.service.steps import StepError
from finetuned_sdk import EngineEnvironment

ENVIRONMENT = EngineEnvironment(
    gpu=("quick",), cpu=("quick-cpu==1.0",), removed=("vision",), check="quick.engine"
)
SOURCE = Source("finetuned[train] @ file:///src", "0.1.0", "abc")


def commands(*, has_gpu: bool) -> list[str]:
    return [step.text for step in plan(Path("/env"), ENVIRONMENT, SOURCE, has_gpu=has_gpu)]


def test_a_machine_without_gpu_gets_the_build_for_cpus_without_what_is_built_for_gpus() -> None:
    made, engine, removed, ours, checked = commands(has_gpu=False)
    assert made == "make the environment /env"
    assert "install quick-cpu==1.0 pluggy psutil" in engine
    assert "uninstall --yes vision" in removed
    assert "--no-deps --force-reinstall finetuned @ file:///src:" in ours
    assert "import quick.engine" in checked


def test_a_machine_with_a_gpu_gets_the_build_for_it_and_keeps_all_of_it() -> None:
    steps = commands(has_gpu=True)
    assert "install quick pluggy psutil" in steps[1]
    assert not any("uninstall" in step for step in steps)


def test_an_environment_that_broke_off_is_completed_and_what_is_in_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "env"
    home.mkdir()
    (home / "pyvenv.cfg").touch()
    (home / "half").touch()
    ran: list[str] = []
    monkeypatch.setattr("finetuned.service.engine_environments.Run.run", lambda self: ran.append(self.text))
    MakeEnvironment(home).run()
    assert (home / "half").exists()  # it may be somebody's who has no pip in it
    assert len(ran) == 1


def test_a_directory_of_other_files_is_not_taken_for_an_environment(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StepError, match="holds files and is no environment"):
        MakeEnvironment(tmp_path).run()
    assert (tmp_path / "thesis.tex").exists()


def test_an_environment_that_is_there_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "env" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.touch()
    monkeypatch.setattr("finetuned.service.engine_environments.Run.run", lambda self: pytest.fail(self.text))
    MakeEnvironment(tmp_path / "env").run()
