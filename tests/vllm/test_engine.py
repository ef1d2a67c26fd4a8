"""The real vLLM behind the daemon: it answers as the model's own forward does, streams, refuses by name, and comes again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

COMPLETIONS = "/v1/completions"
PATIENCE_S = 600.0  # an engine takes half a minute to come up, and longer where others compute


def ask(daemon: Daemon, model: Path, prompt: str, **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": str(model), "prompt": prompt, "max_tokens": 8, "temperature": 0, **more}
    status, answer = daemon.request("POST", COMPLETIONS, body, timeout=PATIENCE_S)
    return status, answer


def greedy(model: Path, prompt: str, tokens: int, adapter: Path | None = None) -> str:
    """What transformers answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, str(adapter))
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        found = loaded.generate(ids, max_new_tokens=tokens, do_sample=False)
    return whole(str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)))


def whole(text: str) -> str:
    """Without the beginning of a character at its end: vLLM keeps that to itself."""
    return text.rstrip("\ufffd")


def text_of(answer: dict[str, Any]) -> str:
    return whole(answer["choices"][0]["text"])


def engine(daemon: Daemon) -> dict[str, Any]:
    (found,) = [each for each in daemon.ok("GET", "/v1/jobs?kind=vllm")["data"] if each["state"] == "running"]
    return dict(found)


def test_it_answers_greedily_what_the_model_itself_does(daemon: Daemon, model: Path) -> None:
    status, answer = ask(daemon, model, "What is 3 plus 4?")
    assert status == 200, answer
    assert answer["model"] == str(model)
    assert text_of(answer) == greedy(model, "What is 3 plus 4?", 8)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
def test_an_adapter_is_loaded_when_it_is_asked_and_the_base_stays_as_it_was(
    daemon: Daemon, model: Path, adapter: Path
) -> None:
    status, answer = ask(daemon, adapter, "What is 3 plus 4?")
    assert status == 200, answer
    assert text_of(answer) == greedy(model, "What is 3 plus 4?", 8, adapter)
    assert text_of(ask(daemon, model, "What is 3 plus 4?")[1]) == greedy(model, "What is 3 plus 4?", 8)


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"frobnicate": 1}, "unsupported_parameter", "frobnicate"),
        ({"temperature": 9}, "invalid_value", "temperature"),
        ({"prompt": "word " * 600}, "context_length_exceeded", None),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    daemon: Daemon, model: Path, more: dict[str, Any], code: str, param: str | None
) -> None:
    status, answer = ask(daemon, model, **{"prompt": "What?", **more})
    assert status == 400, answer
    assert answer["error"]["code"] == code
    assert param is None or answer["error"]["param"] == param


def test_a_killed_engine_comes_again_for_the_next_request(daemon: Daemon, model: Path) -> None:
    assert ask(daemon, model, "What?")[0] == 200
    before = engine(daemon)
    os.kill(before["attempts"][-1]["pid"], signal.SIGKILL)
    eventually(
        lambda: (
            len(daemon.job(before["id"])["attempts"][-1:])
            and daemon.job(before["id"])["attempts"][0]["ended_at"]
        ),
        what="its end",
    )
    status, answer = ask(daemon, model, "What is 3 plus 4?")
    assert status == 200, answer
    assert text_of(answer) == greedy(model, "What is 3 plus 4?", 8)


def test_nothing_of_an_engine_that_was_cancelled_is_left(daemon: Daemon, model: Path) -> None:
    assert ask(daemon, model, "What?")[0] == 200
    running = engine(daemon)
    assert len(daemon.attempt_processes(running["id"])) > 2  # the runner, the worker, and vLLM's own
    daemon.ok("POST", f"/v1/jobs/{running['id']}/cancel")
    assert daemon.wait_for(running["id"])["state"] == "cancelled"
    assert daemon.attempt_processes(running["id"]) == []


def test_a_model_that_makes_embeddings_answers_with_what_its_own_forward_gives(
    daemon: Daemon, embedder: Path
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    body = {"model": str(embedder), "input": ["What is 3 plus 4?", "seven"], "encoding_format": "float"}
    status, answer = daemon.request("POST", "/v1/embeddings", body, timeout=PATIENCE_S)
    assert status == 200, answer
    assert answer["model"] == str(embedder)
    tokenizer, own = AutoTokenizer.from_pretrained(embedder), AutoModel.from_pretrained(embedder).eval()
    for text, found in zip(body["input"], answer["data"], strict=True):
        with torch.no_grad():
            first = own(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]  # BERT's [CLS]
        expected = torch.nn.functional.normalize(first, dim=0)
        assert torch.allclose(torch.tensor(found["embedding"]), expected, atol=1e-4)


def test_a_model_that_generates_says_that_it_makes_no_embeddings(daemon: Daemon, model: Path) -> None:
    status, answer = daemon.request(
        "POST", "/v1/embeddings", {"model": str(model), "input": "seven"}, timeout=PATIENCE_S
    )
    assert status == 404, answer
    assert "does not answer /v1/embeddings" in answer["error"]["message"]
