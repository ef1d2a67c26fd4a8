from __future__ import annotations

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

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.put("hf", "hf_newer_value")
    assert store.read("hf") == "hf_abcdefgh"
    assert [path.name for path in store.directory.iterdir()] == ["hf"]
