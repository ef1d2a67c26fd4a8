"""What of a world a backup names."""

from __future__ import annotations

from pathlib import Path

from tests.unit.domain.worlds import Scene

from finetuned.backups import contents
from finetuned.backups.contents import Named
from finetuned.domain import facts, files


def test_files_are_named_as_datasets_are_with_their_hash_where_the_log_knows_it() -> None:
    scene = Scene()
    for file_id, sha256 in (("file-0123456789", "a" * 64), ("file-1111111111", None)):
        fact = facts.FileCreated(
            id=file_id, filename="rows.jsonl", purpose="batch", path=f"/s/{file_id}", bytes=3, sha256=sha256
        )
        scene.fold(files.create(fact, actor="uid:1"))
    assert list(contents.named(scene.world)) == [
        Named("dataset", "file-0123456789", Path("/s/file-0123456789"), "a" * 64),
        Named("dataset", "file-1111111111", Path("/s/file-1111111111")),
    ]
