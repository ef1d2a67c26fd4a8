"""A plugin that comes as a distribution of its own: found, run, blocked, and refused where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, running
from tests.third_party import installed

from finetuned_sdk import SDK_VERSION

MISSPELT = ("def finetuned_register(", "def finetuned_regsiter(")
FROM_THE_FUTURE = ('FINETUNED_SDK = "1.0"', 'FINETUNED_SDK = "2.0"\nfrom finetuned_sdk import NotThereYet')
UNMARKED = ("@hookimpl\n", "")
#: what is changed in the module -> what is said of it
REFUSALS = [
    pytest.param(
        *MISSPELT,
        "Its hook 'finetuned_regsiter' is none that this release has. Did you mean 'finetuned_register'? "
        "Rename the function; the hooks are: finetuned_register.",
        id="a misspelt hook",
    ),
    pytest.param(
        *FROM_THE_FUTURE,
        f"It is written for version 2.0 of the plugin SDK, and this release of finetuned has {SDK_VERSION}: "
        f"upgrade finetuned, or install a release of the plugin for {SDK_VERSION}.",
        id="another SDK",
    ),
    pytest.param(
        *UNMARKED,
        "Its function finetuned_register is not marked as a hook: write @hookimpl of finetuned_sdk above it.",
        id="no hook",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin is installed as it is."""
    return installed.install(installed.COUNTDOWN, tmp_path_factory.mktemp("site"))


def with_plugins_of(site: Path, **more: str) -> Daemon:
    return Daemon(PYTHONPATH=installed.search_path(site), **more)


def assert_the_daemon_works(daemon: Daemon) -> None:
    assert daemon.wait_for(daemon.submit("fake"))["state"] == "succeeded"


def assert_there_is_no_such_kind(daemon: Daemon) -> None:
    status, answer = daemon.request("POST", "/v1/jobs", {"kind": "countdown", "params": {}})
    assert (status, answer["error"]["code"]) == (400, "unknown_kind")
    assert "countdown" not in [kind["name"] for kind in daemon.ok("GET", "/v1/kinds")["data"]]


def test_what_is_installed_is_found_by_its_entry_point(site: Path) -> None:
    assert (site / "finetuned_countdown-1.0.dist-info" / "entry_points.txt").is_file()
    code, found = installed.plugin("countdown", site)
    assert code == 0
    assert found == {
        "name": "countdown",
        "module": "finetuned_countdown",
        "status": "loaded",
        "reason": None,
    }


def test_its_kind_of_job_runs_on_a_daemon(site: Path) -> None:
    with running(PYTHONPATH=installed.search_path(site)) as daemon:
        job = daemon.wait_for(daemon.submit("countdown", start=4))
        assert (job["state"], job["result"]["said"]) == ("succeeded", [4, 3, 2, 1])
        assert daemon.steps(job["id"])[-1] == 4
        (artifact,) = job["artifacts"]
        assert json.loads(Path(artifact["path"]).read_text("utf-8")) == [4, 3, 2, 1]
        status, answer = daemon.request("POST", "/v1/jobs", {"kind": "countdown", "params": {"strat": 4}})
        assert (status, answer["error"]["param"]) == (400, "params.strat")


def test_a_variable_of_the_environment_blocks_it(site: Path) -> None:
    block = {"FINETUNED_BLOCK_PLUGINS": "countdown"}
    code, found = installed.plugin("countdown", site, **block)
    assert (code, found["status"], found["reason"]) == (0, "blocked", "FINETUNED_BLOCK_PLUGINS names it")
    with with_plugins_of(site, **block) as daemon:
        daemon.start()
        assert_there_is_no_such_kind(daemon)
        assert_the_daemon_works(daemon)


@pytest.mark.parametrize(("old", "new", "reason"), REFUSALS)
def test_one_that_does_not_fit_is_refused_with_what_to_do_and_costs_nobody_else_anything(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    source = installed.changed(installed.COUNTDOWN, tmp_path / "source", "finetuned_countdown.py", old, new)
    site = installed.install(source, tmp_path / "site")
    code, found = installed.plugin("countdown", site)
    assert (code, found["status"], found["reason"]) == (1, "broken", reason)
    with with_plugins_of(site) as daemon:
        daemon.start()
        assert f"Plugin countdown (finetuned_countdown) is left out: {reason}" in daemon.log()
        assert_there_is_no_such_kind(daemon)
        assert_the_daemon_works(daemon)


def test_of_two_plugins_with_one_kind_of_job_the_second_is_refused(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    installed.changed(installed.COUNTDOWN, source, "pyproject.toml", "countdown", "other")
    (source / "finetuned_countdown.py").rename(source / "finetuned_other.py")
    other = installed.install(source, tmp_path / "other")
    more = {"PYTHONPATH": installed.search_path(site, other)}
    assert installed.plugin("countdown", site, **more)[1]["status"] == "loaded"
    code, found = installed.plugin("other", site, **more)
    assert (code, found["status"]) == (1, "broken")
    assert "block one of them with FINETUNED_BLOCK_PLUGINS" in found["reason"]
