"""Run schemathesis over the whole API of a daemon of our own: ``python tests/fuzz/run.py [--seed N] [--examples N]``."""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests" / "acceptance" / "daemon"))

from process import Daemon  # type: ignore[import-not-found]  # noqa: E402 - the path is set above


def main() -> int:
    """Start a daemon with the fake kind, fuzz it over TCP, stop it; schemathesis' exit code."""
    options = _options()
    port = _free_port()
    with Daemon("--listen", f"127.0.0.1:{port}") as daemon:
        settings = daemon.state / "config.toml"
        # Whoever sends wrong tokens on purpose is not to be slowed down here.
        settings.write_text("auth_failures = 1000000\n", encoding="utf-8")
        daemon.arguments += ["--config", str(settings)]
        daemon.start()
        _, token = daemon.request("POST", "/v1/tokens", {"scope": "admin", "name": "fuzz"})
        print(f"seed {options.seed}, {options.examples} examples an operation")  # noqa: T201
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "hooks",
            "PYTHONPATH": str(HERE),
            "FUZZ_SCRATCH": str(daemon.state),
            # At work all the while, beside the devices.
            "FUZZ_JOBS": " ".join(daemon.submit(steps=10**6, step_seconds=0.05, devices=0) for _ in range(2)),
        }
        address = f"http://127.0.0.1:{port}/openapi.json"
        found, links = 0, 0
        for phases in ("stateful", "stateful", "stateful", "examples,coverage,fuzzing"):
            command = [*_command(options, address, token["token"]), "--phases", phases]
            options.seed += 1  # how far the stateful phase gets is chance: three seeds get far enough
            done = subprocess.run(
                command, env=environment, cwd=daemon.state, check=False, stdout=subprocess.PIPE, text=True
            )
            print(done.stdout)  # noqa: T201
            found |= done.returncode
            links += sum(map(int, re.findall(r"API Links:\s+(\d+) covered", done.stdout)))
        assert daemon.process.poll() is None, f"the daemon died\n{daemon.log()}"
        kinds = collections.Counter(event["type"] for event in daemon.events())
        print("recorded:", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))  # noqa: T201
        # A run that made nothing, and so used nothing that was made, shows nothing.
        assert links > 0, "no link was followed; try another seed"
        if "Traceback" in daemon.log():
            print(daemon.log())  # noqa: T201
            return 1
        return found


def _command(options: argparse.Namespace, address: str, token: str) -> list[str]:
    """schemathesis with a seed; with a limit in seconds each phase goes on for so long."""
    command = [
        str(Path(sys.executable).parent / "st"),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        address,
    ]
    # A daemon that drains stops when nothing runs: tests of its own cover that.
    command += ["--exclude-operation-id", "drain.begin"]
    command += ["--header", f"Authorization: Bearer {token}", "--seed", str(options.seed)]
    command += ["--max-examples", str(options.examples)]
    return [*command, *(["--max-time", str(options.seconds)] if options.seconds else [])]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=0, help="go on for so long, twice")
    return parser.parse_args()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
