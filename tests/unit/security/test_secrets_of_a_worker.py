from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from finetuned.attempts.output import Redactor
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
    assert {value, "-----BEGIN-----", "abcdefghij", "-----END-----"} <= set(secrets.needles([value]))
    assert secrets.masked(f"> {value} <", [value]) == "> *** <"
    assert secrets.masked("> abcdefghij", [value]) == "> ***"


def test_a_secret_that_begins_like_another_is_masked_whole() -> None:
    assert secrets.masked("hf_abcdef", ["hf_abc", "hf_abcdef"]) == "***"


VALUE = 'canary"9f8e\\7d6c/5b4a+xyz=ä'
WRITTEN = {
    "JSON": json.dumps(VALUE),
    "JSON as it is": json.dumps(VALUE, ensure_ascii=False),
    "JSON in JSON's place of a key": json.dumps({VALUE: 1}),
    "repr": repr(VALUE),
    "repr of bytes": repr(VALUE.encode()),
    "URL": f"https://host/?token={quote(VALUE, safe='')}&x=1",
    "URL's path": f"https://host/{quote(VALUE)}",
    "form": urlencode({"token": VALUE}),
}


@pytest.mark.parametrize("form", list(WRITTEN))
def test_a_value_is_masked_as_it_is_often_written(form: str) -> None:
    assert VALUE not in WRITTEN[form] or form == "JSON as it is"
    for masked in (
        secrets.masked(WRITTEN[form], [VALUE]),
        Redactor(secrets.needles([VALUE])).feed(WRITTEN[form].encode() + b"\n").decode(),
    ):
        assert "***" in masked
        assert "9f8e" not in masked
        assert "5b4a" not in masked


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:", "Bearer "])
@pytest.mark.parametrize("after", ["", ":", "\n", "xyz"])
def test_a_value_is_masked_in_base64_wherever_it_begins(
    encode: Callable[[bytes], bytes], before: str, after: str
) -> None:
    text = encode(f"{before}{VALUE}{after}".encode()).decode()
    masked = secrets.masked(f"Authorization: Basic {text}", [VALUE])
    kept = masked.removeprefix("Authorization: Basic ")
    assert "***" in kept
    # What is left are the neighbours' characters, and one at either end that is theirs in part.
    assert len(kept) - 3 <= len(text) - len(VALUE.encode()) * 8 // 6 + 2


def test_the_forms_of_a_plain_value_are_itself_and_base64() -> None:
    assert len(secrets.needles(["hunter2hunter2"])) == 4


def test_a_plugin_asks_for_a_secret_by_its_name(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path, secrets={"HF_TOKEN": "hf_abcdefgh"})
    assert ctx.secret("HF_TOKEN") == "hf_abcdefgh"
    with pytest.raises(JobError, match="names no secret 'WANDB_API_KEY'; submit it with one") as caught:
        ctx.secret("WANDB_API_KEY")
    assert caught.value.code == "secret_missing"
