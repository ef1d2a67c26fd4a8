"""``chat``: ask a model, once or in a conversation."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio.to_thread
import click

from finetuned.cli import console, printable
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.domain.errors import FinetunedError, InvalidRequestError
from finetuned.wire import Completion

Json = Any


@click.command
@click.argument("model")
@click.argument("question", required=False)
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--max-tokens", type=click.IntRange(1), help="The longest answer, in tokens.")
@click.option(
    "--temperature", type=click.FloatRange(0), help="How freely it answers; 0 for its likeliest words."
)
@click.option("--seed", type=int, help="The same answer again, where the engine can.")
@json_option("Print JSON: the whole answer. Needs a QUESTION.", shape=Completion)
@with_daemon
async def chat(
    daemon: Client,
    *,
    model: str,
    question: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Ask a MODEL: a registered one, an ft: name or an alias.

    Without a QUESTION it is a conversation: a line is a question, an empty one is passed over, Ctrl-D ends it. The
    model's engine is started if need be, and the first answer waits for it.
    """
    options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    body: dict[str, Json] = {
        "model": model,
        "messages": [] if system is None else [{"role": "system", "content": system}],
        **{name: value for name, value in options.items() if value is not None},
    }
    if question is not None:
        body["messages"].append({"role": "user", "content": question})
        if as_json:
            console.emit(await daemon.chat(body))
        else:
            await _print_answer(daemon, body)
        return
    if as_json:
        raise InvalidRequestError("--json needs a QUESTION; give one, or leave --json out.")
    await _converse(daemon, body)


async def _converse(daemon: Client, body: dict[str, Json]) -> None:
    """Ask line by line; the model is told all that was said before. What it refuses ends nothing but that question."""
    messages = body["messages"]
    async for line in _lines():
        messages.append({"role": "user", "content": line})
        try:
            answer = await _print_answer(daemon, body)
        except FinetunedError as error:
            if error.status == 404 or not sys.stdin.isatty():
                raise
            console.note(error.message)
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})


async def _lines() -> AsyncIterator[str]:
    is_terminal = sys.stdin.isatty()
    while True:
        if is_terminal:
            print("> ", end="", flush=True, file=sys.stderr)
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            if is_terminal:
                print(file=sys.stderr)
            return
        if line.strip():
            yield line.strip()


async def _print_answer(daemon: Client, body: Json) -> str:
    said: list[str] = []
    async with aclosing(daemon.chat_chunks(body)) as chunks:
        async for chunk in chunks:
            for choice in chunk.get("choices") or ():
                text = (choice.get("delta") or {}).get("content") or ""
                said.append(text)
                print(printable.visible(text), end="", flush=True)
    print()
    return "".join(said)
