"""Who answers the requests of the benchmark of batches beside ours: warm processes, and vLLM's runner of batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.batch_daemon import WrongError
from bench.batch_workload import (
    AT_ONCE,
    CONTEXT,
    Asked,
    make_model,
    read_asked,
    requests,
    text_of,
    write_asked,
    write_batch,
)

ROOT = Path(__file__).parents[1]
SAME = 0.99  # of all texts; the rest may be where two tokens are as likely to the last digit
VLLM_ENVIRONMENT = {  # as our engine has it
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

Run = dict[str, Any]


class Workload:
    """What all are asked, and where the model lies."""

    def __init__(self, scratch: Path, count: int, *, quick: bool, threads: int) -> None:
        self.scratch = scratch
        self.threads = threads
        self.model = make_model(scratch / "model", quick=quick)
        self.asked = write_asked(scratch / "asked.json", requests(count))

    @property
    def requests(self) -> list[Asked]:
        """The requests."""
        return read_asked(self.asked)

    @property
    def tokens(self) -> int:
        """That all completions have together."""
        return sum(each.tokens for each in self.requests)

    def batch(self, asked: list[Asked] | None = None) -> bytes:
        """A batch's input."""
        path = write_batch(self.scratch / "in.jsonl", asked or self.requests, str(self.model))
        return path.read_bytes()

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of a peer."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            **more,
        }


class Peer:
    """A process of ``batch_peers.py`` that has its model loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, work: Workload) -> Run:
        """Have all requests answered once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        found = json.loads(self.line())
        texts = {each.custom_id: text for each, text in zip(work.requests, found["texts"], strict=True)}
        return {**found, "texts": texts}

    def line(self) -> str:
        """The next line that it writes. Raises ``WrongError`` if it ends."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise WrongError(f"{self._process.args!r} ended")
        return line


@contextmanager
def peer(
    way: str, work: Workload, environment: Mapping[str, str], python: str = sys.executable
) -> Iterator[Peer]:
    """A peer that is warm."""
    command = [python, str(ROOT / "bench" / "batch_peers.py"), way, "--model", str(work.model)]
    log = work.scratch / f"{way}.log"
    with (
        log.open("a", encoding="utf-8") as errors,
        subprocess.Popen(
            [*command, "--asked", str(work.asked)],
            env=work.environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        found = Peer(process)
        try:
            found.line()  # that it is ready
            yield found
        except BaseException:
            sys.stderr.write(log.read_text(encoding="utf-8")[-2000:])
            process.kill()
            raise


def run_batch(work: Workload, python: Path) -> Run:
    """VLLM's own runner of batches, as a process from its start to its end."""
    work.batch()
    output = work.scratch / "run_batch.jsonl"
    flags = [
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        str(CONTEXT),
        "--max-num-seqs",
        str(AT_ONCE),
    ]
    command = [str(python), "-m", "vllm.entrypoints.openai.run_batch", "--model", str(work.model)]
    files = ["-i", str(work.scratch / "in.jsonl"), "-o", str(output)]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, *files, *flags],
        env=work.environment(VLLM_ENVIRONMENT),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    if done.returncode:
        raise WrongError(f"run_batch ended with {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [json.loads(each) for each in output.read_text(encoding="utf-8").splitlines()]
    texts = {each["custom_id"]: text_of(each["response"]["body"]) for each in lines}
    return {"seconds": seconds, "texts": texts}


def check(texts: Mapping[str, str], expected: Mapping[str, str], work: Workload) -> int:
    """How many texts are as expected. Raises ``WrongError`` if requests have none, or too many have another."""
    if sorted(texts) != sorted(each.custom_id for each in work.requests):
        raise WrongError(f"{len(texts)} results for {len(work.requests)} requests, or of others")
    same = sum(texts[name] == expected[name] for name in texts)
    if same < SAME * len(texts):
        raise WrongError(f"only {same} of {len(texts)} texts are the same")
    return same
