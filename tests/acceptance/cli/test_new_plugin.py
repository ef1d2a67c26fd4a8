"""``finetune plugins new``: what it writes, under which names, and what it refuses."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run

from finetuned.skeleton import names, writing
from finetuned_sdk import SDK_VERSION


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_written_here_with_all_its_files_and_what_to_do_next(finetune: Run, here: Path) -> None:
    outcome = finetune("plugins", "new", "byte-lm")
    assert outcome.code == 0
    root = here / "finetuned-byte-lm"
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert sorted(files) == [
        "README.md",
        "finetuned_byte_lm/__init__.py",
        "finetuned_byte_lm/data.py",
        "finetuned_byte_lm/plugin.py",
        "finetuned_byte_lm/trainer.py",
        "pyproject.toml",
        "sample.jsonl",
        "tests/test_trainer.py",
    ]
    assert all(f"  {file}\n" in outcome.out for file in files)
    assert "pip install --editable ./finetuned-byte-lm" in outcome.err


def test_it_says_which_sdk_it_is_written_for_and_where_its_declaration_is(finetune: Run, here: Path) -> None:
    finetune("plugins", "new", "byte-lm")
    root = here / "finetuned-byte-lm"
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == "finetuned-byte-lm"
    assert project["entry-points"]["finetuned"] == {"byte-lm": "finetuned_byte_lm.plugin"}
    declaration = (root / "finetuned_byte_lm" / "plugin.py").read_text("utf-8")
    assert f'FINETUNED_SDK = "{SDK_VERSION}"' in declaration


def test_no_template_is_left_with_a_gap(finetune: Run, here: Path) -> None:
    finetune("plugins", "new", "byte-lm")
    written = "".join(path.read_text("utf-8") for path in here.rglob("*") if path.is_file())
    assert "$package" not in written
    assert "$kind" not in written
    assert "\n$ finetune run byte-lm " in written  # a prompt is none


def test_with_json_it_says_what_was_made(finetune: Run, here: Path) -> None:
    made = finetune("plugins", "new", "Byte_LM", "--directory", "mine/plugins", "--json").json
    assert made == {
        "name": "byte-lm",
        "distribution": "finetuned-byte-lm",
        "package": "finetuned_byte_lm",
        "directory": str(here / "mine" / "plugins" / "finetuned-byte-lm"),
        "files": list(writing.render(names.PluginName("byte-lm"))),
    }
    assert all((Path(made["directory"]) / file).is_file() for file in made["files"])


@pytest.mark.parametrize(
    ("text", "kind", "package"),
    [
        ("byte-lm", "byte-lm", "finetuned_byte_lm"),
        ("Byte_LM", "byte-lm", "finetuned_byte_lm"),
        ("byte.lm", "byte-lm", "finetuned_byte_lm"),
        ("byte-_.lm", "byte-lm", "finetuned_byte_lm"),
        ("finetuned-byte-lm", "byte-lm", "finetuned_byte_lm"),
        ("finetuned_byte_lm", "byte-lm", "finetuned_byte_lm"),
        ("class", "class", "finetuned_class"),
        ("v2", "v2", "finetuned_v2"),
    ],
)
def test_a_name_becomes_one_for_distributions_and_packages(text: str, kind: str, package: str) -> None:
    name = names.PluginName.parse(text)
    assert (name.kind, name.package) == (kind, package)
    assert name.package.isidentifier()
    assert name.distribution == f"finetuned-{kind}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "3d",
        "-x",
        "x-",
        "my trainer",
        "../x",
        "a/b",
        "größe",
        "x" * 41,
        "finetuned-",
        "x\n",
        "x$y",
        ".",
    ],
)
def test_a_name_that_can_be_none_is_refused_and_nothing_is_written(
    finetune: Run, here: Path, text: str
) -> None:
    outcome = finetune("plugins", "new", "--json", "--", text)
    assert outcome.code == 2
    assert '"code": "invalid_name"' in outcome.err
    assert "use up to 40 letters" in outcome.err
    assert list(here.iterdir()) == []


def test_what_is_there_is_not_touched(finetune: Run, here: Path) -> None:
    mine = here / "finetuned-byte-lm"
    mine.mkdir()
    (mine / "plugin.py").write_text("mine")
    outcome = finetune("plugins", "new", "byte-lm", "--json")
    assert outcome.code == 4
    assert '"code": "plugin_exists"' in outcome.err
    assert "another place with --directory" in outcome.err
    assert [path.name for path in mine.iterdir()] == ["plugin.py"]


@pytest.mark.parametrize(
    ("name", "taken"),
    [("sdk", "the package finetuned_sdk"), ("import-gguf", "the kind of job import-gguf")],
)
def test_a_name_that_this_environment_has_already_is_refused(
    finetune: Run, here: Path, name: str, taken: str
) -> None:
    outcome = finetune("plugins", "new", name, "--json")
    assert outcome.code == 4
    assert '"code": "plugin_exists"' in outcome.err
    assert f"This environment has {taken} already; choose another name." in outcome.err
    assert list(here.iterdir()) == []


def test_a_place_that_is_a_file_is_refused(finetune: Run, here: Path) -> None:
    (here / "file").touch()
    assert finetune("plugins", "new", "byte-lm", "--directory", "file").code == 2


def test_a_list_is_still_what_comes_without_a_word(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FINETUNED_EXTRA_PLUGINS", "FINETUNED_BLOCK_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    listed = finetune("plugins", "--json")
    assert listed.code == 0
    assert [finetune("plugins", word, "--json").json for word in ("ls", "list")] == [listed.json] * 2
    monkeypatch.setenv("FINETUNED_EXTRA_PLUGINS", "no_such_module")
    assert (finetune("plugins").code, finetune("plugins", "ls").code) == (1, 1)
