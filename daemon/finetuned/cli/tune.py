"""``tune-batch``: a short job that finds how many rows a pass are the fastest, and trains nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from finetuned.cli import console, parameters, tables, transfers, units, watch
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Event, Job, Kind

Json = Any

BATCH, PASSES = "per_device_train_batch_size", "gradient_accumulation_steps"


@click.command("tune-batch")
@click.argument("kind")
@click.option("--model", help="The base model: a registered name, a directory or a hub id.")
@click.option("--data", metavar="FILE", help="The training rows, as `finetune run` takes them.")
@click.option(
    "--param", "params", metavar="K=V", multiple=True, help="A parameter of the kind; can be repeated."
)
@json_option("Print JSON: the job's events, the ended job last.", shape=Event | Job, lines=True)
@with_daemon
async def tune_batch(
    daemon: Client,
    *,
    kind: str,
    model: str | None,
    data: str | None,
    params: tuple[str, ...],
    as_json: bool,
) -> int:
    """Find the fastest batch that fits, by a short job that trains nothing.

    KIND is a kind of `finetune kinds` that takes tune_only. The rows of an optimizer step stay what the parameters make
    them, per_device_train_batch_size times gradient_accumulation_steps: what is found is how to split them into passes.
    """
    known = await daemon.kind(kind)
    given = await _given(daemon, known, model, data, params)
    job = await daemon.submit(kind, tuning(given, known), name=f"tune-batch {kind}")
    code = await watch.to_the_end(daemon, job, as_json=as_json)
    if code or as_json:
        return code
    result = (await daemon.job(job["id"]))["result"] or {}
    console.show(tried(result), empty="Nothing was tried: a stop came first.")
    if result.get(BATCH):
        console.say(
            command(kind, {"--model": model, "--data": data}, params, result[BATCH], result[PASSES]),
            style="bold",
        )
    return code


async def _given(
    daemon: Client, kind: Kind, model: str | None, data: str | None, params: tuple[str, ...]
) -> dict[str, Json]:
    here = Path.cwd()
    short = {"model": model, "dataset": data}
    texts = [f"{name}={value}" for name, value in short.items() if value is not None]
    given = parameters.parse_params([*texts, *params], kind["name"], kind["params_schema"])
    chosen = {"dataset"} if data is not None else set()
    sent = await transfers.uploaded(daemon, given, kind["dataset_params"], here=here, chosen=chosen)
    return parameters.absolute_paths(sent, here=here)


def tuning(given: Mapping[str, Json], kind: Kind) -> dict[str, Json]:
    """The parameters of the short job: the batch is left to it, a step has the rows that it had.

    Raises ``InvalidRequestError`` for a kind that finds no batch, and for a step that ``auto`` cannot have.
    """
    schema: Mapping[str, Json] = kind["params_schema"].get("properties", {})
    if "tune_only" not in schema:
        raise InvalidRequestError(
            f"{kind['name']} finds no batch by itself; only kinds with the parameter tune_only do.",
            param="kind",
            code="nothing_to_tune",
        )
    usual, passes = int(schema[BATCH]["default"]), given.get(PASSES, schema[PASSES]["default"])
    batch = given.get(BATCH, usual)
    rows = passes * (usual if batch == "auto" else batch)
    if rows % usual:
        raise InvalidRequestError(
            f"An optimizer step of {rows} rows cannot be tuned; choose {BATCH} and {PASSES} so that their product is a "
            f"multiple of {usual}.",
            param=f"params.{BATCH}",
            code="invalid_params",
        )
    return {**given, BATCH: "auto", PASSES: rows // usual, "tune_only": True}


def tried(result: Mapping[str, Json]) -> Table:
    """What was tried, one batch a line, the one that was taken marked."""
    right = ("ROWS A PASS", "PASSES A STEP", "ROWS/S", "TOKENS/S", "PEAK MEMORY")
    shown = tables.table(*right, "", right=right)
    for each in result.get("batches_tried") or []:
        taken = each["batch"] == result.get(BATCH)
        shown.add_row(
            str(each["batch"]),
            str(each["accumulation"]),
            units.figure(each["rows_per_second"]) if each["fits"] else "",
            units.figure(each["tokens_per_second"]) if each["fits"] else "",
            units.size(each["peak_bytes"]) if each["peak_bytes"] else "",
            "the fastest that fits" if taken else "" if each["fits"] else "does not fit",
        )
    return shown


def command(
    kind: str, options: Mapping[str, str | None], params: Iterable[str], batch: int, passes: int
) -> str:
    """The command that trains with what was found."""
    kept = [text for text in params if parameters.split(text)[0] not in {BATCH, PASSES, "tune_only"}]
    words = ["finetune", "run", kind]
    words += [word for name, value in options.items() if value is not None for word in (name, value)]
    for text in (*kept, f"{BATCH}={batch}", f"{PASSES}={passes}"):
        words += ["--param", text]
    return shlex.join(words)
