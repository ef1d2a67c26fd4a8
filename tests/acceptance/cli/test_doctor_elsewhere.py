"""``finetune doctor --state-dir``: what is looked at lies there, and not where the configuration says."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of the configuration, with a secret that everybody may read."""
    state = tmp_path / "configured"
    _secret(state).chmod(0o644)
    monkeypatch.setenv("FINETUNED_STATE_DIR", str(state))
    monkeypatch.setenv("FINETUNED_SOCKET", str(state / "s"))
    monkeypatch.setenv("FINETUNED_LISTEN", "")
    return state


def _secret(state: Path) -> Path:
    (state / "secrets").mkdir(parents=True, mode=0o700)
    secret = state / "secrets" / "hf"
    secret.write_text("x")
    secret.chmod(0o600)
    return secret


def permissions(finetune: Run, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        each["name"]: each for each in finetune("doctor", "--json", *arguments).json["checks"]
    }
    check: dict[str, Any] = found["permissions"]
    return check


def test_another_state_directorys_secrets_are_looked_at_and_not_the_configured_ones(
    finetune: Run, configured: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    secret = _secret(other)
    assert permissions(finetune)["message"].startswith(str(configured / "secrets" / "hf"))
    assert permissions(finetune, "--state-dir", str(configured))["verdict"] == "fail"
    assert permissions(finetune, "--state-dir", str(other))["verdict"] == "ok"
    secret.chmod(0o640)
    assert permissions(finetune, "--state-dir", str(other))["message"].startswith(str(secret))


def test_another_state_directorys_socket_is_looked_at(
    finetune: Run, configured: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(other / "finetuned.sock"))
        (other / "finetuned.sock").chmod(0o666)
        assert permissions(finetune, "--state-dir", str(other))["message"].startswith(
            str(other / "finetuned.sock")
        )
