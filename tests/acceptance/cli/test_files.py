"""``finetune files`` and the client's calls about files, against the real application."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio.from_thread
import pytest
from tests.acceptance.cli.conftest import Apart, apart

from finetuned.client import SyncClient
from finetuned.client.endpoint import Endpoint
from finetuned.domain.errors import FinetunedError
from finetuned.testing import House, serve_house

ROWS = b'{"custom_id": "a"}\n'


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A served daemon, on a loop of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="ft-") as state,
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve_house(Path(state))) as served,
    ):
        monkeypatch.setenv("FINETUNED_SOCKET", str(served.addresses.socket))
        monkeypatch.delenv("FINETUNED_URL", raising=False)
        yield served


@pytest.fixture
def finetune(house: House, capsys: pytest.CaptureFixture[str]) -> Apart:
    return apart(capsys)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a name that forms have to quote, in the directory where commands run."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'größe "1".jsonl'
    file.write_bytes(ROWS)
    return file


def test_a_file_is_sent_listed_shown_brought_back_and_removed(finetune: Apart, rows: Path) -> None:
    code, out, _ = finetune("files", "upload", str(rows), "--purpose", "batch", "--json")
    assert code == 0
    file = json.loads(out)
    assert (file["purpose"], file["bytes"], file["expires_at"] - file["created_at"]) == (
        "batch",
        19,
        30 * 86_400,
    )
    assert file["filename"] == rows.name.replace('"', "%22")  # as forms have it
    assert file["id"] in finetune("files")[1]
    assert json.loads(finetune("files", "ls", "--purpose", "evals", "--json")[1])["data"] == []
    assert "No files have the purpose evals" in finetune("files", "ls", "--purpose", "evals")[2]
    assert json.loads(finetune("files", "show", file["id"], "--json")[1]) == file
    assert finetune("files", "download", file["id"], "-o", "back.jsonl")[0] == 0
    assert Path("back.jsonl").read_bytes() == ROWS
    assert finetune("files", "rm", file["id"])[:2] == (
        0,
        f"{file['id']} is removed; jobs that are live keep what they were given.\n",
    )
    code, _, err = finetune("files", "show", file["id"])
    assert code == 3
    assert "finetune files" in err


def test_how_long_a_file_is_kept_can_be_said(finetune: Apart, rows: Path) -> None:
    code, out, _ = finetune("files", "upload", str(rows), "--purpose", "evals", "--keep", "2", "--json")
    assert code == 0
    file = json.loads(out)
    assert file["expires_at"] - file["created_at"] == 2 * 86_400


def test_what_is_no_file_or_no_purpose_is_refused_before_anything_is_sent(
    finetune: Apart, rows: Path
) -> None:
    code, _, err = finetune("files", "upload", "nowhere.jsonl", "--purpose", "batch")
    assert (code, "no file of this machine" in err) == (2, True)
    code, _, err = finetune("files", "upload", str(rows), "--purpose", "assistants")
    assert (code, "user_data" in err) == (2, True)
    code, _, err = finetune("files", "upload", str(rows))
    assert (code, "choose from: fine-tune, batch" in err.lower(), "vision. See" in err) == (2, True, True)
    code, _, err = finetune("files", "upload", str(rows), "--purpose", "batch", "--keep", "0")
    assert (code, "0.042<=x<=30. See" in err) == (2, True)


def test_programs_without_asyncio_have_the_same_calls(house: House, tmp_path: Path) -> None:
    content = tmp_path / "rows.jsonl"
    content.write_bytes(ROWS)
    with SyncClient(Endpoint(house.addresses.socket)) as daemon:
        sent = [0]

        def count(size: int) -> None:
            sent[0] += size

        made = [daemon.upload_file(content, purpose="fine-tune", on_bytes=count) for _ in range(3)]
        assert sent == [3 * len(ROWS)]
        ids = [each["id"] for each in made][::-1]
        assert [each["id"] for each in daemon.all_files()] == ids
        assert [each["id"] for each in daemon.files(limit=1, after=ids[0])["data"]] == [ids[1]]
        assert daemon.file(ids[0]) == made[-1]
        assert daemon.download_file_content(ids[0], tmp_path / "back")
        assert not daemon.download_file_content(ids[0], tmp_path / "back")  # it is there
        daemon.delete_file(ids[0])
        with pytest.raises(FinetunedError) as caught:
            daemon.file(ids[0])
        assert caught.value.stable_code == "file_not_found"
