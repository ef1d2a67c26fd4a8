from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from finetuned.domain.errors import FinetunedError, InvalidRequestError, Rejected
from finetuned.secrets.store import SecretMissingError, SecretName, SecretStore, SecretUnsafeError, name_of


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "secrets")


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """What ``LoadCredential=secret:DIRECTORY`` leaves, an access list's mode included."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    for name, value in (("secret_hf", "hf_of_systemd"), ("tls-key", "not to be named")):
        (directory / name).write_text(value)
        (directory / name).chmod(0o440)
    return directory


def test_a_value_is_kept_in_a_file_of_its_owner_and_read_back(store: SecretStore) -> None:
    store.put("hf", "hf_abcdefgh")
    assert store.read("hf") == "hf_abcdefgh"
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.directory / "hf").stat().st_mode) == 0o600
    store.put("hf", "hf_newer_value")
    assert store.read("hf") == "hf_newer_value"
    assert store.names() == [SecretName("hf", writable=True)]
    assert [path.name for path in store.directory.iterdir()] == ["hf"]


def test_a_value_of_several_lines_is_kept(store: SecretStore) -> None:
    store.put("key", "-----BEGIN\nabc\n-----END")
    assert store.read("key") == "-----BEGIN\nabc\n-----END"


def test_a_deleted_secret_is_gone(store: SecretStore) -> None:
    store.put("hf", "hf_abcdefgh")
    store.delete("hf")
    assert store.names() == []
    for act in (store.read, store.delete):
        with pytest.raises(SecretMissingError, match="There is no secret 'hf'") as caught:
            act("hf")
        assert (caught.value.stable_code, caught.value.status) == ("secret_not_found", 404)


@pytest.mark.parametrize("name", ["", "../events", "a/b", ".hidden", "HF", "a\0b", "x" * 65, "ü"])
def test_a_name_that_is_none_reaches_no_file(store: SecretStore, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="choose such a name"):
        store.put(name, "long enough")
    with pytest.raises(InvalidRequestError, match="choose such a name"):
        store.delete(name)
    with pytest.raises(SecretMissingError):
        store.read(name)


@pytest.mark.parametrize(
    "value", ["", "tiny", " padded-value", "value-with-newline\n", "nul\0-in-the-value", "x" * 9000]
)
def test_a_value_that_cannot_be_kept_is_refused_and_not_quoted(store: SecretStore, value: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        store.put("hf", value)
    assert caught.value.param == "value"
    assert value == "" or value.strip() not in caught.value.message
    assert not store.directory.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_not_used(store: SecretStore, mode: int) -> None:
    store.put("hf", "hf_abcdefgh")
    (store.directory / "hf").chmod(mode)
    with pytest.raises(SecretUnsafeError, match="chmod 600") as caught:
        store.read("hf")
    assert (caught.value.stable_code, caught.value.status) == ("secret_unsafe", 503)


def test_a_directory_that_is_open_to_others_is_not_used(store: SecretStore) -> None:
    store.put("hf", "hf_abcdefgh")
    store.directory.chmod(0o750)
    with pytest.raises(SecretUnsafeError, match="chmod 700"):
        store.read("hf")
    with pytest.raises(SecretUnsafeError, match="chmod 700"):
        store.put("hf", "hf_newer_value")


def test_a_link_is_no_secret(store: SecretStore, tmp_path: Path) -> None:
    store.put("hf", "hf_abcdefgh")
    (tmp_path / "elsewhere").write_text("something else")
    (tmp_path / "elsewhere").chmod(0o600)
    (store.directory / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretUnsafeError):
        store.read("link")


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"short\n", b"x" * 9000])
def test_a_file_that_holds_no_secret_says_so(store: SecretStore, content: bytes) -> None:
    store.put("hf", "hf_abcdefgh")
    (store.directory / "hf").write_bytes(content)
    with pytest.raises(SecretUnsafeError, match="write it again"):
        store.read("hf")


def test_systemds_credentials_come_first_and_cannot_be_changed(tmp_path: Path, credentials: Path) -> None:
    store = SecretStore(tmp_path / "secrets", credentials)
    assert store.read("hf") == "hf_of_systemd"
    assert store.names() == [SecretName("hf", writable=False)]
    store.put("wandb", "wandb-of-the-store")
    assert [each.name for each in store.names()] == ["hf", "wandb"]
    with pytest.raises(Rejected, match="LoadCredential") as caught:
        store.put("hf", "hf_abcdefgh")
    assert caught.value.stable_code == "secret_read_only"
    with pytest.raises(Rejected, match="LoadCredential"):
        store.delete("hf")


def test_only_the_credentials_that_are_meant_as_secrets_can_be_named(
    tmp_path: Path, credentials: Path
) -> None:
    store = SecretStore(tmp_path / "secrets", credentials)
    assert "tls-key" not in [each.name for each in store.names()]
    with pytest.raises(SecretMissingError):
        store.read("tls-key")


def test_a_credential_that_the_world_can_read_is_not_used(tmp_path: Path, credentials: Path) -> None:
    (credentials / "secret_hf").chmod(0o444)
    with pytest.raises(SecretUnsafeError):
        SecretStore(tmp_path / "secrets", credentials).read("hf")


def test_references_are_resolved_and_anything_else_is_none(store: SecretStore) -> None:
    store.put("hf", "hf_abcdefgh")
    assert store.resolve({"HF_TOKEN": "secret:hf"}) == {"HF_TOKEN": "hf_abcdefgh"}
    with pytest.raises(SecretMissingError):
        store.resolve({"HF_TOKEN": "secret:other"})
    with pytest.raises(FinetunedError, match="secret:NAME"):
        name_of("hf_abcdefgh")


def test_a_full_disk_leaves_the_old_value_and_no_piece_of_the_new(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("hf", "hf_abcdefgh")
    sync = os.fsync

    def full(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.put("hf", "hf_newer_value")
    assert store.read("hf") == "hf_abcdefgh"
    assert [path.name for path in store.directory.iterdir()] == ["hf"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the disk, in order: syncs by the name of what was synced, renames and removals."""
    told: list[str] = []
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        told.append("sync " + ("value" if name.startswith(".") else name))
        sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        assert path.read_text() == "hf_abcdefgh"
        told.append(f"rename {target.name}")
        return replace(path, target)

    def remove(path: Path, *, missing_ok: bool = False) -> None:
        told.append(f"remove {path.name}")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(Path, "unlink", remove)
    return told


def test_a_value_is_on_disk_before_its_name_and_its_name_before_put_returns(
    store: SecretStore, done: list[str]
) -> None:
    store.put("hf", "hf_abcdefgh")
    assert done == [f"sync {store.directory.parent.name}", "sync value", "rename hf", "sync secrets"]


def test_a_removal_is_on_disk_before_delete_returns(store: SecretStore, done: list[str]) -> None:
    store.put("hf", "hf_abcdefgh")
    done.clear()
    store.delete("hf")
    assert done == ["remove hf", "sync secrets"]


def test_a_value_that_a_killed_daemon_left_half_stored_is_swept_and_nothing_else(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("hf", "hf_abcdefgh")

    def killed(_path: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        for name in ("hf", "wandb.ai-1", "x"):
            with pytest.raises(KeyboardInterrupt):
                store.put(name, "hf_newer_value")
    others = (".hf", ".hf-1234567", ".hf-123456789", ".hf-1234567z", "hf-12345678", ".HF-12345678", "README")
    for name in others:
        (store.directory / name).write_text("theirs")
    assert len(list(store.directory.iterdir())) == 1 + 3 + len(others)
    store.sweep()
    assert sorted(path.name for path in store.directory.iterdir()) == sorted(["hf", *others])
    assert store.read("hf") == "hf_abcdefgh"


def test_what_cannot_be_swept_stays_and_no_directory_is_nothing_to_sweep(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.sweep()
    assert not store.directory.exists()
    store.directory.mkdir()
    for name in (".a-12345678", ".b-12345678"):
        (store.directory / name).touch()
    unlink = Path.unlink

    def busy(path: Path, *, missing_ok: bool = False) -> None:
        if path.name.startswith(".a"):
            raise OSError(30, "Read-only file system")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", busy)
    store.sweep()
    assert [path.name for path in store.directory.iterdir()] == [".a-12345678"]
