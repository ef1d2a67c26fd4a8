from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from finetuned_events import Anchor, BackupError, backup, connection, durable


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.db"
    connection.connect_writer(path).close()
    return path


def test_an_empty_log_has_a_backup(source: Path, tmp_path: Path) -> None:
    with closing(connection.connect_reader(source)) as read:
        report = backup.backup(read, tmp_path / "copy.db")

    assert report.head == Anchor(0, bytes(32))
    assert sorted(path.name for path in tmp_path.glob("*copy*")) == ["copy.db"]


def test_what_an_interrupted_backup_left_is_no_obstacle(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".copy.db.partial").write_bytes(b"half a copy")
    with closing(connection.connect_reader(source)) as read:
        backup.backup(read, tmp_path / "copy.db")

    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_copy_that_is_not_sound_is_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(path: Path) -> None:
        if path.name.endswith(".partial"):
            content = bytearray(path.read_bytes())
            content[4096 + 3 : 4096 + 40] = bytes([255]) * 37
            path.write_bytes(content)

    monkeypatch.setattr(durable, "sync", damage)
    with closing(connection.connect_reader(source)) as read, pytest.raises(BackupError):
        backup.backup(read, tmp_path / "copy.db")

    assert list(tmp_path.glob("*copy*")) == []
