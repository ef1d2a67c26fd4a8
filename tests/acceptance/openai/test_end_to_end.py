"""A program for OpenAI from end to end on one daemon: it trains a model, hears of it, talks to it, and has it work through a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.acceptance.daemon.process import Daemon, eventually
from tests.acceptance.sft.tiny import chat, exchange, save_model

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]
PATIENCE_S = 150.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    file = tmp_path / "config.toml"
    file.write_text('outbound_allow = ["127.0.0.0/8"]\n[engines.transformers]\noptions = { at_once = 4 }\n')
    with Daemon("--config", str(file)) as started:
        yield started.start()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    transport = httpx2.HTTPTransport(uds=str(daemon.socket))
    with (
        httpx2.Client(transport=transport, timeout=PATIENCE_S) as http,
        openai.OpenAI(base_url="http://localhost/v1", api_key="none", http_client=http) as found,
    ):
        yield found


class Inbox:
    """A receiver of webhooks on the loopback."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, dict[str, str]]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((body, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    found = Inbox()
    serving = threading.Thread(target=found.server.serve_forever)
    serving.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
        serving.join()


def test_a_program_trains_a_model_hears_of_it_and_has_it_work(
    daemon: Daemon, client: openai.OpenAI, inbox: Inbox, tmp_path: Path
) -> None:
    hook = daemon.ok(
        "POST",
        "/v1/webhooks",
        {"url": inbox.url, "types": ["fine_tuning.job.succeeded", "batch.completed"]},
    )
    base = tmp_path / "tiny-llama"
    save_model(base)
    rows = "".join(json.dumps(chat(number)) + "\n" for number in range(12))
    training = client.files.create(file=("rows.jsonl", rows.encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=str(base),
        training_file=training.id,
        suffix="colours",
        extra_body={"x_finetuned": {"params": {"max_length": 64, "max_steps": 4}}},
    )
    eventually(
        lambda: client.fine_tuning.jobs.retrieve(job.id).status in {"succeeded", "failed"},
        timeout=PATIENCE_S,
        what="the end of the training",
    )
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert model is not None
    assert model in {each.id for each in client.models.list()}

    question = exchange(0)[0]
    said: Any = {
        "model": model,
        "max_tokens": 6,
        "temperature": 0,
        "messages": [{"role": "user", "content": question}],
    }
    whole = client.chat.completions.create(**said)
    streamed = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**said, stream=True)
        if chunk.choices
    )
    assert whole.model == model
    assert whole.choices[0].message.content == streamed

    requests = [
        {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": said}
        for n in range(5)
    ]
    lines = "".join(json.dumps(each) + "\n" for each in requests).encode()
    input_file = client.files.create(file=("batch.jsonl", lines), purpose="batch")
    batch = client.batches.create(
        input_file_id=input_file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    eventually(
        lambda: client.batches.retrieve(batch.id).status in {"completed", "failed"},
        timeout=PATIENCE_S,
        what="the end of the batch",
    )
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed", done
    assert done.output_file_id is not None
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert {each["custom_id"] for each in answers} == {f"row-{n}" for n in range(5)}
    texts = {each["response"]["body"]["choices"][0]["message"]["content"] for each in answers}
    assert texts == {streamed}

    def ids() -> set[str]:
        return {headers["webhook-id"] for _, headers in inbox.received}

    eventually(lambda: len(ids()) >= 2, timeout=PATIENCE_S, what="both webhooks")
    # Each at least once, so by its id.
    first = {headers["webhook-id"]: (body, headers) for body, headers in reversed(inbox.received)}
    told = [client.webhooks.unwrap(*each, secret=hook["secret"]) for each in first.values()]
    assert {(each.type, each.data.id) for each in told} == {  # type: ignore[union-attr]
        ("fine_tuning.job.succeeded", job.id),
        ("batch.completed", batch.id),
    }
