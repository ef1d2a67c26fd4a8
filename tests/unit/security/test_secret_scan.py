from __future__ import annotations

from typing import Any

import pytest

from finetuned.domain.errors import InvalidRequestError
from finetuned.secrets.scan import references, refuse_secrets, without_tokens

# Put together here, so that no scanner of repositories takes them for real ones.
HF = "hf_" + "a1B2" * 8
OPENAI = "sk-" + "proj-abc123" * 4
OURS = "ft_x7k2m9qd4t_" + "Ab3_" * 11


def refusal(document: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        refuse_secrets(document, where="params")
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        HF,
        f"use {HF} please",
        OPENAI,
        OURS,
        "wandb_v1_" + "Abc123" * 5,
        "ghp_" + "a1" * 18,
        "github_pat_" + "a1_" * 10,
        "glpat-" + "a1b2" * 5,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a1B2c" * 7,
        "xoxb-" + "1234567890-abc",
        "whsec_" + "a1B2" * 8,
        "eyJ" + "hbGciOiJI" * 3 + "." + "eyJ" + "zdWIiOiIx" * 3 + ".sig",
        "-----BEGIN RSA PRIVATE KEY-----\nabc",
        "https://user:hunter2@mlflow.example.org/",
        "postgresql+psycopg://me:pw@db/x",
    ],
)
def test_a_text_in_the_form_of_a_token_is_refused_anywhere_and_not_quoted(value: str) -> None:
    for document in ({"note": value}, {"deep": [{"er": value}]}, {value: 1}):
        error = refusal(document)
        assert error.stable_code == "secret_in_params"
        assert "finetune secrets set" in error.message
        assert value not in error.message
        assert value not in str(error.param)


@pytest.mark.parametrize(
    "name",
    ["password", "api_key", "apikey", "OPENAI_API_KEY", "secret", "client-secret", "token", "aws.access_key"],
)
def test_a_value_under_a_name_that_says_secret_must_be_a_reference(name: str) -> None:
    error = refusal({"a": {name: "whatever"}})
    assert error.param == f"params.a.{name}"
    assert "whatever" not in error.message
    refuse_secrets({name: "secret:hf"}, where="params")
    refuse_secrets({name: ""}, where="params")
    refuse_secrets({name: None}, where="params")


def test_a_long_plain_value_under_the_name_of_a_token_is_refused() -> None:
    assert refusal({"hub_token": "0123456789abcdef0123"}).param == "params.hub_token"


@pytest.mark.parametrize(
    "document",
    [
        {"eos_token": "<|im_end|>", "pad_token": "[PAD]", "stop_token": "</s>"},
        {"max_new_tokens": 64, "tokens": "many", "tokenizer": "gpt2", "token_count": "12345678901234567890"},
        {"git": "4461a95f0c1b2d3e4f5a6b7c8d9e0f1a2b3c4d5e"},
        {"sha256": "ab" * 32},
        {"model": "org/model", "url": "https://mlflow.example.org:5000/x?y=a@b"},
        {"text": "the secret of a good password is its length; ask-me-anything-about-it"},
        {"name": "hf_hub run", "task-name": "risk-assessment-of-everything-we-know"},
        {"monkey": "x", "keyboard": "y", "key": "z"},
        [],
        None,
    ],
)
def test_ordinary_parameters_and_metadata_pass(document: Any) -> None:
    refuse_secrets(document, where="metadata")


def test_a_job_refers_to_secrets_by_its_own_names_and_in_its_parameters() -> None:
    found = references({"hub": {"auth": "secret:hub"}, "x": "secret:hf"}, {"HF_TOKEN": "secret:hf"})
    assert found == {"HF_TOKEN": "secret:hf", "secret:hub": "secret:hub"}
    assert references({"note": "a secret:hf in a sentence"}, {}) == {}


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "FINETUNED_ATTEMPT", "HTTPS_PROXY", "", "A=B", "A B", "1X"]
)
def test_a_secret_cannot_take_the_name_of_a_variable_that_decides_what_runs(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot name a secret") as caught:
        references({}, {name: "secret:hf"})
    assert caught.value.param == "secrets"


def test_a_value_in_the_place_of_a_reference_is_refused_and_not_quoted() -> None:
    with pytest.raises(InvalidRequestError, match="not a reference") as caught:
        references({}, {"HF_TOKEN": HF})
    assert (caught.value.stable_code, caught.value.param) == ("secret_in_params", "secrets.HF_TOKEN")
    assert HF not in caught.value.message


def test_texts_that_nobody_wrote_on_purpose_are_masked_by_form() -> None:
    data = {"message": f"401 with {HF}, then {OPENAI}", "rows": [1, None, ("x", HF)]}
    assert without_tokens(data) == {"message": "401 with ***, then ***", "rows": [1, None, ["x", "***"]]}
