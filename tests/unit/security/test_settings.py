"""The settings that bound paths, addresses and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned import config
from finetuned.domain.errors import ConfigError


def load(tmp_path: Path, **given: Any) -> config.Config:
    return config.load(None, {"state_dir": tmp_path / "state", **given}, {"HOME": str(tmp_path)})


def test_nothing_is_allowed_by_default_and_secrets_lie_beside_the_log(tmp_path: Path) -> None:
    chosen = load(tmp_path)
    assert (chosen.data_roots, chosen.outbound_allow) == ((), ())
    assert chosen.secrets_dir == tmp_path / "state" / "secrets"


def test_roots_and_hosts_are_taken_as_they_are_written(tmp_path: Path) -> None:
    chosen = load(tmp_path, data_roots=["/srv/data"], outbound_allow=["label-studio.lan", "10.0.0.0/8"])
    assert chosen.data_roots == (Path("/srv/data"),)
    assert chosen.outbound_allow == ("label-studio.lan", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"data_roots": ["data"]}, "must be an absolute path"),
        ({"data_roots": ["/srv/../etc"]}, "must be an absolute path"),
        ({"outbound_allow": ["http://x"]}, "neither a host name nor an address"),
        ({"outbound_allow": ["10.0.0.0/99"]}, "neither a host name nor an address"),
    ],
)
def test_a_root_or_host_that_cannot_be_meant_stops_the_start(
    tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path, **given)


@pytest.mark.parametrize("root", ["", "state", "state/jobs", "elsewhere", "link"])
def test_a_root_may_not_overlap_the_daemons_own_files(tmp_path: Path, root: str) -> None:
    (tmp_path / "state" / "jobs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("state")
    with pytest.raises(ConfigError, match="lie in each other") as caught:
        load(tmp_path, data_roots=[str(tmp_path / root)], secrets_dir=tmp_path / "elsewhere")
    assert "choose a folder that holds data only" in caught.value.message
