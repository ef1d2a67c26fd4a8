from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from finetuned import __version__
from finetuned.domain.errors import InvalidRequestError
from finetuned.service import sources
from finetuned.service.layout import Scope
from finetuned.service.sources import find_python, find_source


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The running environment does not train."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)


def noted(monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    class Distribution:
        def read_text(self, _name: str) -> str | None:
            return content

    monkeypatch.setattr(metadata, "distribution", lambda _name: Distribution())


def checkout(path: Path, name: str = "finetuned") -> Path:
    path.mkdir()
    (path / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "0.3.0"\n')
    (path / "daemon").mkdir()
    (path / "daemon" / "a.py").write_text("a = 1\n")
    return path


def test_a_wheel_is_known_by_its_content(tmp_path: Path) -> None:
    wheel = tmp_path / "finetuned-0.2.0-py3-none-any.whl"
    wheel.write_bytes(b"one")
    first = find_source(str(wheel))
    assert (first.requirement, first.version) == (f"finetuned @ {wheel.as_uri()}", "0.2.0")
    assert find_source(str(wheel)) == first
    wheel.write_bytes(b"two")
    assert find_source(str(wheel)).fingerprint != first.fingerprint


def test_a_checkout_is_known_by_its_sources(tmp_path: Path) -> None:
    path = checkout(tmp_path / "c")
    first = find_source(str(path))
    assert (first.requirement, first.version) == (f"finetuned @ {path.as_uri()}", "0.3.0")
    (path / "daemon" / "__pycache__").mkdir()
    (path / "daemon" / "__pycache__" / "a.pyc").touch()
    assert find_source(str(path)) == first
    (path / "daemon" / "a.py").write_text("a = 2\n")
    assert find_source(str(path)).fingerprint != first.fingerprint


@pytest.mark.parametrize("version", ["0.2.0", "1.0rc1", "2.1.0.dev3", "1.0+cu126"])
def test_a_version_is_left_to_the_index(version: str) -> None:
    assert find_source(version).requirement == f"finetuned=={version}"


def test_a_release_trains_if_the_running_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    assert find_source("0.2.0").requirement == "finetuned[train]==0.2.0"


@pytest.mark.parametrize(
    "named", ["", "latest", "other-1.0-py3-none-any.whl", "--upgrade", "0.2.0; rm -rf /"]
)
def test_anything_else_is_refused_with_the_remedy(named: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other-1.0-py3-none-any.whl").touch()
    with pytest.raises(InvalidRequestError, match="--from"):
        find_source(named)


def test_a_directory_of_another_project_is_refused(tmp_path: Path) -> None:
    for path in (checkout(tmp_path / "c", "other"), tmp_path):
        with pytest.raises(InvalidRequestError, match="no checkout of finetuned; name a wheel"):
            find_source(str(path))


def test_without_a_name_it_is_what_the_running_program_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkout(tmp_path / "a b")
    noted(monkeypatch, f'{{"url": "{path.as_uri()}", "dir_info": {{"editable": true}}}}')
    assert find_source().version == "0.3.0"
    noted(monkeypatch, None)  # from the index
    assert find_source().requirement == f"finetuned=={__version__}"


@pytest.mark.parametrize("url", ["file:///gone/finetuned-1-py3-none-any.whl", "https://host.example/f.whl"])
def test_an_origin_that_is_not_at_hand_is_named_with_the_remedy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(monkeypatch, f'{{"url": "{url}"}}')
    with pytest.raises(InvalidRequestError, match=f"installed from {url}, which is not at hand; .*--from"):
        find_source()


def test_a_program_that_is_not_installed_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(InvalidRequestError, match=r"not installed; .*--from"):
        find_source()


def test_an_interpreter_in_a_home_is_none_for_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "_PRIVATE", (tmp_path,))
    link = tmp_path / "link"
    link.symlink_to("/bin/sh")
    real = tmp_path / "real"
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    assert find_python("/bin/sh", Scope.SYSTEM) == Path("/bin/sh")
    for python in (link, real):
        assert find_python(str(python), Scope.USER) == python
        with pytest.raises(InvalidRequestError, match=r"home directories.*--python /usr/bin/python3"):
            find_python(str(python), Scope.SYSTEM)


def test_an_interpreter_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be run; correct --python"):
        find_python(str(tmp_path / "python"), Scope.USER)


def test_the_interpreter_is_the_one_below_the_running_environment() -> None:
    assert find_python(None, Scope.USER).resolve() == Path(sys.executable).resolve()
