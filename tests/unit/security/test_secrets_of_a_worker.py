from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned_sdk import JobError, secrets
from finetuned_sdk.testing import RecordingContext


def test_values_pass_through_an_anonymous_file_once() -> None:
    values = {"HF_TOKEN": 'hf_ä\n"quoted"', "quiet": "x" * 70_000}
    descriptor = secrets.to_descriptor(values)
    assert not os.get_inheritable(descriptor)
    assert str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("/memfd:")
    assert secrets.from_descriptor(descriptor) == values
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_names_in_capitals_become_variables_and_others_do_not() -> None:
    environment: dict[str, str] = {}
    secrets.export({"HF_TOKEN": "a", "quiet": "b", "secret:hf": "c"}, environment)
    assert environment == {"HF_TOKEN": "a"}


def test_texts_and_keys_are_masked_and_figures_left() -> None:
    data = {"a hunter2hunter2": ["x hunter2hunter2 y", 1, None, 2.5, {"k": ("hunter2hunter2",)}]}
    assert secrets.masked(data, ["hunter2hunter2"]) == {"a ***": ["x *** y", 1, None, 2.5, {"k": ["***"]}]}
    assert secrets.masked(data, []) == {
        "a hunter2hunter2": ["x hunter2hunter2 y", 1, None, 2.5, {"k": ["hunter2hunter2"]}]
    }


def test_a_secret_of_several_lines_is_found_by_its_long_lines_too() -> None:
    value = "-----BEGIN-----\nabcdefghij\nxy\n-----END-----"
    assert secrets.needles([value])[0] == value
    assert set(secrets.needles([value])) == {value, "-----BEGIN-----", "abcdefghij", "-----END-----"}
    assert secrets.masked("> abcdefghij", [value]) == "> ***"


def test_a_secret_that_begins_like_another_is_masked_whole() -> None:
    assert secrets.masked("hf_abcdef", ["hf_abc", "hf_abcdef"]) == "***"


def test_a_plugin_asks_for_a_secret_by_its_name(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path, secrets={"HF_TOKEN": "hf_abcdefgh"})
    assert ctx.secret("HF_TOKEN") == "hf_abcdefgh"
    with pytest.raises(JobError, match="names no secret 'WANDB_API_KEY'; submit it with one") as caught:
        ctx.secret("WANDB_API_KEY")
    assert caught.value.code == "secret_missing"
