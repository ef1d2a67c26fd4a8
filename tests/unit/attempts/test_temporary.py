from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from finetuned.attempts import temporary
from finetuned_sdk.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = tmp_path / "bundle"
    path.mkdir()
    return Bundle(path)


def test_the_bundle_says_where_the_directory_is_until_it_is_removed(bundle: Bundle) -> None:
    path = temporary.create(bundle, {})
    assert bundle.temporary.readlink() == path
    assert path.parent == Path("/tmp")
    (path / "sub").mkdir()
    (path / "sub" / "file").write_text("x")
    temporary.remove(bundle)
    assert not path.exists()
    assert not bundle.temporary.is_symlink()
    temporary.remove(bundle)


def test_a_short_directory_that_the_operator_chose_is_used(bundle: Bundle) -> None:
    with_slash = temporary.create(bundle, {"TMPDIR": "/var/tmp/"})
    assert with_slash.parent == Path("/var/tmp")
    temporary.remove(bundle)


@pytest.mark.parametrize("chosen", ["/nowhere", "relative", "/tmp/" + "long" * 20])
def test_a_directory_that_is_missing_or_long_is_not_used(bundle: Bundle, chosen: str) -> None:
    path = temporary.create(bundle, {"TMPDIR": chosen})
    assert path.parent == Path("/tmp")
    temporary.remove(bundle)


def test_where_no_short_directory_can_be_made_the_bundle_has_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "LIMIT", 0)
    assert temporary.create(bundle, {}) == bundle.temporary
    (bundle.temporary / "file").write_text("x")
    temporary.remove(bundle)
    assert not bundle.temporary.exists()


def locks(path: Path) -> bool:
    """Whether systemd-tmpfiles could lock the directory, and so would tidy up in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_directory_that_is_held_is_locked_until_its_holder_ends_and_can_be_removed(bundle: Bundle) -> None:
    path = temporary.create(bundle, {})
    held = temporary.hold(path)
    assert held is not None
    assert not locks(path)
    assert not os.get_inheritable(held)
    os.close(held)
    assert locks(path)
    held = temporary.hold(path)
    temporary.remove(bundle)
    assert not path.exists()
    assert held is not None
    os.close(held)


def test_where_no_lock_can_be_had_the_work_goes_on_without(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = temporary.create(bundle, {})
    opened = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        assert temporary.hold(path) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == opened
    temporary.remove(bundle)


def test_a_link_that_was_turned_elsewhere_removes_nothing_there(bundle: Bundle, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    bundle.temporary.symlink_to(precious)
    temporary.remove(bundle)
    assert precious.is_dir()
    assert not bundle.temporary.is_symlink()
