"""Work that tells what its process is like, and modules that no process should be forked with."""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finetuned_sdk import WorkerContext


class ProbeParams(BaseModel):
    """``module``: imported and its ``VALUE`` told."""

    model_config = ConfigDict(extra="forbid")

    module: str | None = None


def tell_process(ctx: WorkerContext, _params: ProbeParams) -> None:
    """All that a worker inherits or is started with."""
    ctx.result(process=json.dumps(process(), sort_keys=True))


def tell_module(ctx: WorkerContext, params: ProbeParams) -> None:
    """A value of a module, and whether it was there before."""
    assert params.module is not None
    was_there = params.module in sys.modules
    ctx.result(value=importlib.import_module(params.module).VALUE, was_there=was_there)


def tell_chance(ctx: WorkerContext, _params: ProbeParams) -> None:
    """What is drawn, from all that draws."""
    import multiprocessing

    import numpy as np

    ctx.result(
        random=str(random.random()),
        numpy=str(np.random.random()),  # noqa: NPY002 - the one that is shared by all
        uuid=uuid.uuid4().hex,
        file=tempfile.mktemp(),
        key=bytes(multiprocessing.current_process().authkey).hex(),
        folder=tempfile.gettempdir(),
    )


def tell_torch(ctx: WorkerContext, _params: ProbeParams) -> None:
    """Compute with several threads."""
    import torch

    one = torch.ones(900, 900, requires_grad=True)
    (one @ one).sum().backward()
    ctx.result(
        threads=torch.get_num_threads(),
        initialised=torch.cuda.is_initialized(),
        seed=str(torch.initial_seed()),
    )


def process() -> dict[str, Any]:
    """What this process is like, beside its numbers."""
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return {
        "environment": dict(os.environ),
        "program's environment": sorted(_program_environment()),
        "arguments": sys.argv,
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "name": status["Name"].strip(),
        "descriptors": _descriptors(),
        "signals": {name: status[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")},
        "handlers": {
            each.name: str(signal.getsignal(each)).partition(" at ")[0]
            for each in sorted(signal.valid_signals())
            if isinstance(each, signal.Signals)
        },
        "directory": str(Path.cwd()),
        "umask": status["Umask"].strip(),
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name[:7] == "RLIMIT_"
        },
        "nice": os.nice(0),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip(),
        "leads its group": os.getpgid(0) == os.getpid(),
        "is in its runner's session": os.getsid(0) == os.getppid(),
        "main": str(sys.modules["__main__"].__spec__.name),  # type: ignore[union-attr]
        "flags": str(sys.flags),
        "output": [_stream(sys.stdout), _stream(sys.stderr)],
        "temporary": tempfile.gettempdir(),
        "threads": sorted(each.name for each in threading.enumerate()),
    }


def _program_environment() -> list[str]:
    content = Path("/proc/self/environ").read_bytes().decode()
    return [line for line in content.split("\0") if line.startswith("FINETUNED_ATTEMPT=")]


def _stream(stream: Any) -> tuple[str, bool, bool]:
    return stream.encoding, stream.line_buffering, stream.write_through


def _descriptors() -> dict[str, str]:
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        try:
            found[each.name] = str(each.readlink())
        except FileNotFoundError:
            continue
    return found


def tell_libraries(ctx: WorkerContext, _params: ProbeParams) -> None:
    """What a training finds when it begins."""
    from peft import import_utils

    ctx.result(
        trainer="finetuned_sft.trainer" in sys.modules,
        asked=import_utils.is_bnb_available(),
        bitsandbytes="bitsandbytes" in sys.modules,
    )
