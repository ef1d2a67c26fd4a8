from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from finetuned.access import server_paths
from finetuned.access.server_paths import UnsafePathError, check_beneath, open_by_steps, open_to_read, root_of

Check = Callable[[Path, Path], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "orders").mkdir(parents=True)
    (root / "orders" / "train.jsonl").write_text("{}\n")
    (tmp_path / "secret.jsonl").write_text("{}\n")
    return root


@pytest.fixture(params=["openat2", "by steps"])
def check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The check with the system call, and as where a kernel or a filter does not have it."""

    def missing(directory: int, relative: Path, *, links: bool) -> int:
        raise OSError(errno.ENOSYS, "no such system call")

    if request.param == "by steps":
        monkeypatch.setattr(server_paths, "_openat2", missing)
    return check_beneath


def test_files_and_folders_beneath_a_root_are_fine(root: Path, check: Check) -> None:
    check(root, root)
    check(root, root / "orders")
    check(root, root / "orders" / "train.jsonl")


def test_a_path_that_climbs_is_refused_before_it_is_opened(root: Path, check: Check) -> None:
    with pytest.raises(UnsafePathError, match="plain absolute path"):
        check(root, root / "orders" / ".." / ".." / "secret.jsonl")


@pytest.mark.parametrize("target", ["../secret.jsonl", "absolute", "orders/../../secret.jsonl"])
def test_a_link_that_leaves_the_root_is_refused(root: Path, check: Check, target: str) -> None:
    link = root / "innocent.jsonl"
    link.symlink_to(root.parent / "secret.jsonl" if target == "absolute" else target)
    with pytest.raises(UnsafePathError, match="symbolic link that leaves"):
        check(root, link)


def test_a_linked_folder_on_the_way_that_leaves_the_root_is_refused(root: Path, check: Check) -> None:
    (root / "up").symlink_to("..")
    with pytest.raises((UnsafePathError, NotADirectoryError)):
        check(root, root / "up" / "secret.jsonl")


def test_a_link_in_a_named_folder_that_leaves_the_root_spoils_the_folder(root: Path, check: Check) -> None:
    (root / "orders" / "more.jsonl").symlink_to("../../secret.jsonl")
    with pytest.raises(UnsafePathError, match=r"orders/more\.jsonl is a symbolic link that leaves"):
        check(root, root / "orders")


def test_a_link_that_stays_beneath_the_root_is_followed_where_the_kernel_can_tell(root: Path) -> None:
    (root / "newest").symlink_to("orders")
    check_beneath(root, root / "newest" / "train.jsonl")
    (root / "orders" / "again").symlink_to("../orders")  # a ring
    check_beneath(root, root)


def test_a_link_to_nothing_in_a_named_folder_is_refused(root: Path) -> None:
    (root / "orders" / "gone").symlink_to("nothing")
    with pytest.raises(UnsafePathError, match="link to nothing"):
        check_beneath(root, root / "orders")


def test_fifos_sockets_and_devices_are_refused_without_waiting_for_them(root: Path, check: Check) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(UnsafePathError, match="neither a file nor a folder"):
        check(root, root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
        with pytest.raises(UnsafePathError, match="neither a file nor a folder"):
            check(root, root / "s")
    with pytest.raises(UnsafePathError, match="neither a file nor a folder"):
        check(root, root)
    with pytest.raises(UnsafePathError, match="neither a file nor a folder"):
        check(Path("/dev"), Path("/dev/null"))


def test_links_of_proc_that_are_no_links_are_not_followed() -> None:
    with pytest.raises((UnsafePathError, OSError)):
        check_beneath(Path("/proc"), Path("/proc/self/cwd/pyproject.toml"))


def test_what_is_not_there_is_said_as_the_system_says_it(root: Path, check: Check) -> None:
    with pytest.raises(FileNotFoundError):
        check(root, root / "nothing")


def test_a_folder_of_very_many_entries_is_not_looked_through(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_paths, "MOST_ENTRIES", 3)
    for number in range(4):
        (root / f"{number}.jsonl").touch()
    with pytest.raises(UnsafePathError, match="more than 3 entries"):
        check_beneath(root, root)


def test_no_descriptor_is_left_open(root: Path, check: Check) -> None:
    (root / "bad").symlink_to("/etc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    check(root, root / "orders")
    for path in (root / "bad", root / "nothing"):
        with pytest.raises((UnsafePathError, OSError)):
            check(root, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_steps_refuse_what_climbs(root: Path) -> None:
    directory = os.open(root, os.O_DIRECTORY | os.O_PATH)
    try:
        with pytest.raises(OSError, match="cross-device"):
            open_by_steps(directory, Path("orders/../.."))
        with pytest.raises(OSError, match="cross-device"):
            open_by_steps(directory, Path("/etc"))
    finally:
        os.close(directory)


def test_the_root_of_a_path_is_found_by_whole_components() -> None:
    roots = (Path("/srv/data"), Path("/mnt"))
    assert root_of(Path("/srv/data/a"), roots) == Path("/srv/data")
    assert root_of(Path("/srv/data"), roots) == Path("/srv/data")
    assert root_of(Path("/srv/database"), roots) is None


def test_a_file_beneath_a_root_is_opened_beneath_it_whatever_it_has_become(root: Path, check: Check) -> None:
    file = root / "orders" / "train.jsonl"
    with os.fdopen(open_to_read(file, (root,))) as opened:
        assert opened.read() == "{}\n"
    file.unlink()
    file.symlink_to("../../secret.jsonl")
    with pytest.raises(OSError, match=r"cross-device|symbolic links"):
        open_to_read(file, (root,))


def test_outside_of_the_roots_no_link_is_followed_on_the_way(root: Path, check: Check) -> None:
    file = root / "orders" / "train.jsonl"
    os.close(open_to_read(file))
    (root / "link").symlink_to("orders")
    (root / "same.jsonl").symlink_to("orders/train.jsonl")
    for path in (root / "link" / "train.jsonl", root / "same.jsonl", Path("/proc/self/environ")):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            open_to_read(path)


def test_a_fifo_beneath_a_root_is_opened_without_waiting(root: Path, check: Check) -> None:
    os.mkfifo(root / "fifo")
    os.close(open_to_read(root / "fifo", (root,)))
