from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned.service.steps import Link, Remove, RemoveEmpty, Run, StepError, Write


def test_a_file_is_written_with_its_mode_and_once(tmp_path: Path) -> None:
    step = Write(tmp_path / "etc" / "unit", "text\n", mode=0o640)
    step.run()
    before = (tmp_path / "etc" / "unit").stat()
    step.run()
    after = (tmp_path / "etc" / "unit").stat()
    assert (after.st_ino, after.st_mode & 0o777) == (before.st_ino, 0o640)
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["unit"]


def test_a_file_that_differs_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("old")
    Write(tmp_path / "unit", "new").run()
    assert (tmp_path / "unit").read_text() == "new"


def test_a_link_of_ours_is_turned_without_a_moment_without_it(tmp_path: Path) -> None:
    link = tmp_path / "current"
    Link(link, tmp_path / "1").run()
    Link(link, tmp_path / "2").run()
    Link(link, tmp_path / "2").run()
    assert link.readlink() == tmp_path / "2"
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the disk, in order: syncs by the name of what was synced, and renames."""
    told: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        told.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        told.append(f"rename {path.name} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    return told


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_before_the_next_step(
    tmp_path: Path, done: list[str]
) -> None:
    Write(tmp_path / "etc" / "unit", "text\n").run()
    assert done == ["sync .unit.new", "rename .unit.new unit", "sync etc"]


def test_a_link_is_on_disk_before_the_next_step(tmp_path: Path, done: list[str]) -> None:
    Link(tmp_path / "opt" / "current", tmp_path / "1").run()
    assert done == ["rename .current.new current", "sync opt"]


def test_a_link_that_a_broken_off_try_left_beside_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".current.new").symlink_to("/nowhere")
    Link(tmp_path / "current", tmp_path / "1").run()
    assert (tmp_path / "current").readlink() == tmp_path / "1"


def test_what_is_no_link_is_left_alone_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "finetune").write_text("mine")
    with pytest.raises(StepError, match="no link of ours; move it away"):
        Link(tmp_path / "finetune", tmp_path / "other").run()
    assert (tmp_path / "finetune").read_text() == "mine"


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "releases")
    Remove(tmp_path / "current").run()
    Remove(tmp_path / "current").run()
    assert (tmp_path / "releases").is_dir()
    Remove(tmp_path / "releases").run()
    assert not (tmp_path / "releases").exists()


def test_a_directory_that_others_use_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    RemoveEmpty(tmp_path).run()
    assert (tmp_path / "theirs").exists()
    (tmp_path / "theirs").unlink()
    RemoveEmpty(tmp_path).run()
    RemoveEmpty(tmp_path).run()
    assert not tmp_path.exists()


def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StepError, match=r"/file.*: [A-Z].*\. Use an account .*sudo.* or `--user`"):
        Write(tmp_path / "file" / "unit", "text").run()


def test_a_command_that_fails_shows_its_last_lines_and_its_exit_code() -> None:
    with pytest.raises(StepError, match=r"`sh -c seq 100; exit 3` ended with 3:\n86\n(.*\n)+100\nMend that"):
        Run(("sh", "-c", "seq 100; exit 3"), "a test").run()


def test_a_command_may_fail_if_the_plan_says_so() -> None:
    Run(("sh", "-c", "exit 3"), "a test", may_fail=True).run()
    Run(("no-such-program",), "a test", may_fail=True).run()


def test_a_program_that_is_not_there_is_named_with_the_remedy() -> None:
    with pytest.raises(StepError, match=r"no-such-program cannot be run .*; install what it belongs to"):
        Run(("no-such-program",), "a test").run()


def test_an_account_that_is_not_there_is_no_traceback() -> None:
    with pytest.raises(StepError, match="cannot be run"):
        Run(("true",), "a test", account="no-such-account").run()


def test_settings_of_the_caller_do_not_reach_a_command_and_those_of_the_plan_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNED_STATE_DIR", "/mine")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/")
    out = tmp_path / "out"
    show = 'echo "$FINETUNED_STATE_DIR,$FINETUNED_SOCKET,$PIP_INDEX_URL,$(umask)" > ' + str(out)
    os.umask(os.umask(0o077))
    Run(("sh", "-c", show), "a test", environment={"FINETUNED_SOCKET": "/its"}).run()
    assert out.read_text() == ",/its,https://index.example/,0022\n"


def test_steps_say_what_they_do() -> None:
    assert Run(("true", "x"), "why", account="finetuned").text == "run true x as finetuned: why"
    assert Write(Path("/a"), "").text == "write /a"
    assert Link(Path("/a"), Path("/b")).text == "link /a -> /b"
    assert Remove(Path("/a"), "why").text == "remove /a: why"
    assert Remove(Path("/a")).text == "remove /a"
    assert RemoveEmpty(Path("/a")).text == "remove /a if it is empty"
