"""Secrets planted wherever a daemon meets one, and looked for wherever it could have left one: 0 hits.

What is legitimate is left out by name and looked at first: the file of the secret itself, and the answer that shows a
new token once. Without those the search could not find anything at all.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, UnixConnection

from finetuned.api.call import Route
from finetuned.api.routes import OPEN_ROUTES, ROUTES

# Of a form that no scanner of repositories takes for a real one, and that nothing else says.
CANARIES = {
    "store": "canary-in-the-store-4f1c09d2",
    "older": "canary-that-was-replaced-77ab01",
    "gone": "canary-that-was-removed-52de90",
    "systemd": "canary-of-systemd-e2b8a651",
    "environment": "canary-in-the-environment-9d03",
    "config": "canary-in-a-comment-of-the-config-1c7e",
    "job": "hf_" + "canaryInAJob" * 3,
    "metadata": "sk-" + "canary-in-metadata-" * 2,
}


def finetune(daemon: Daemon, *arguments: str, value: str = "") -> str:
    """The command line, with a value on stdin."""
    done = subprocess.run(
        [sys.executable, "-m", "finetuned.cli.main", *arguments],
        input=value,
        env={**os.environ, "FINETUNED_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def raw(daemon: Daemon, path: str) -> tuple[int, bytes]:
    """One GET, as bytes."""
    connection = UnixConnection(daemon.socket, 10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def planted(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with canaries in its configuration, its environment and systemd's credentials."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "secret_wandb").write_text(CANARIES["systemd"])
    (credentials / "secret_wandb").chmod(0o400)
    config = tmp_path / "config.toml"
    config.write_text(f'# {CANARIES["config"]}\nallowed_hosts = ["localhost"]\n')
    with Daemon(
        "--config",
        str(config),
        CREDENTIALS_DIRECTORY=str(credentials),
        OPENAI_API_KEY=CANARIES["environment"],
        FINETUNED_TOKEN=CANARIES["environment"],
    ) as daemon:
        yield daemon.start()


def paths(route: Route, names: dict[str, str]) -> str:
    """The path of a route with the names of things that are there; its parameters' patterns are left out."""
    plain = re.sub(r"\{(\w+):[^{}]+\}", r"{\1}", route.path)
    if plain.startswith("/v1/jobs/"):
        names = {**names, "name": "adapter"}
    elif plain.startswith("/v1/kinds/"):
        names = {**names, "name": "fake"}
    return re.sub(r"\{(\w+)\}", lambda match: urllib.parse.quote(names.get(match[1], "none")), plain)


def forms(value: str) -> list[bytes]:
    """The value as it stands, and as it would look in a header or a URL."""
    plain = value.encode()
    return list(dict.fromkeys([plain, base64.b64encode(plain), urllib.parse.quote(value, safe="").encode()]))


def hits(where: str, content: bytes, canaries: dict[str, str]) -> list[str]:
    """Where which canary was found."""
    return [
        f"{name} in {where}" for name, value in canaries.items() for each in forms(value) if each in content
    ]


def files(daemon: Daemon) -> list[tuple[str, bytes]]:
    """Everything below the state directory but the secrets themselves: log, WAL, spools, bundles, output, stderr."""
    found = [path for path in daemon.state.rglob("*") if path.is_file() and not path.is_symlink()]
    secrets = daemon.state / "secrets"
    return [(str(path), path.read_bytes()) for path in found if not path.is_relative_to(secrets)]


def processes(pids: list[int]) -> list[tuple[str, bytes]]:
    """Environments of the attempt's processes, and the command line of every process of the machine."""
    looked = [Path(f"/proc/{pid}/environ") for pid in pids]
    looked += [path / "cmdline" for path in Path("/proc").glob("[0-9]*")]
    found = []
    for path in looked:
        try:
            found.append((str(path), path.read_bytes()))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.timeout(180)
def test_no_canary_is_found_in_log_spools_output_bundles_answers_arguments_or_stderr(tmp_path: Path) -> None:
    with planted(tmp_path) as daemon:
        said = finetune(daemon, "secrets", "set", "hf", value=CANARIES["older"])
        said += finetune(daemon, "secrets", "set", "hf", value=CANARIES["store"] + "\n")
        said += finetune(daemon, "secrets", "set", "short-lived", value=CANARIES["gone"])
        said += finetune(daemon, "secrets", "rm", "short-lived")
        said += finetune(daemon, "secrets", "set", "short-lived", "--json", value=CANARIES["gone"])
        said += finetune(daemon, "secrets", "rm", "short-lived", "--json")
        said += finetune(daemon, "secrets", "list") + finetune(daemon, "secrets", "list", "--json")
        token = daemon.ok("POST", "/v1/tokens", {"scope": "read", "name": "canary"})["token"]
        canaries = {**CANARIES, "token": str(token)}

        refused = [
            daemon.request("POST", "/v1/jobs", body)
            for body in (
                {"kind": "fake", "params": {"model": CANARIES["job"]}},
                {"kind": "fake", "metadata": {"note": CANARIES["metadata"]}},
                {"kind": "fake", "secrets": {"HF_TOKEN": CANARIES["job"]}},
                {"kind": CANARIES["job"], "params": {"token": CANARIES["job"]}},
            )
        ]
        assert [answer["error"]["code"] for _status, answer in refused] == ["secret_in_params"] * 4

        told = {
            "tell": ["HF_TOKEN", "WANDB_API_KEY"],
            "steps": 30,
            "step_seconds": 0.1,
            "checkpoint_every": 10,
            "gate": str(daemon.gate),
        }
        request = {
            "kind": "gated",
            "params": {**told, "register_as": "told"},
            "secrets": {"HF_TOKEN": "secret:hf", "WANDB_API_KEY": "secret:wandb"},
        }
        job = str(daemon.ok("POST", "/v1/jobs", request)["id"])
        daemon.wait_for(job, "running")
        found = processes(daemon.attempt_processes(job))
        assert (
            len([where for where, _ in found if where.endswith("environ")]) >= 2
        )  # the runner and its worker
        daemon.open_gate()
        assert daemon.wait_for(job)["result"]["told"] == ["***"]
        failing = {**request, "params": {**told, "fail_at": 1, "steps": 1}, "max_attempts": 1}
        failed = daemon.wait_for(str(daemon.ok("POST", "/v1/jobs", failing)["id"]))
        assert "as asked *** ***" in failed["error"]["message"]

        found += files(daemon)  # while the log's newest pages are in the WAL
        assert any(where.endswith("-wal") and content for where, content in found)
        daemon.ok("POST", "/v1/log/backup", {"path": str(tmp_path / "copy.sqlite")})
        found.append(("a backup", (tmp_path / "copy.sqlite").read_bytes()))

        names = {"job_id": job, "model": "told", "name": "told", "path": "weights.bin"}
        gets = [paths(route, names) for route in ROUTES if route.method == "GET"]
        gets += [route.path for route in OPEN_ROUTES if route.method == "GET"]
        answers = [(path, *raw(daemon, path)) for path in gets]
        good = [path for path, status, _ in answers if status == 200]
        there = [path for path in gets if not path.endswith("/none")]  # what names nothing that is not there
        assert len(good) >= 0.8 * len(there), sorted(set(there) - set(good))
        found += [(f"GET {path}", content) for path, _, content in answers]
        found += [(f"a refusal ({status})", str(answer).encode()) for status, answer in refused]
        found.append(("what finetune said", said.encode()))

        output = dict(found)[str(daemon.state / "jobs" / job / "attempts" / "1" / "output.log")]
        assert output.count(b"the secret is ***") == 2
        assert (daemon.state / "secrets" / "hf").read_text() == CANARIES["store"]
        daemon.stop()
        found += files(daemon)

        assert [hit for where, content in found for hit in hits(where, content, canaries)] == []
        looked = sum(len(content) for _, content in found)
        sys.stdout.write(
            f"0 hits of {len(canaries)} canaries in {len(found)} places, {looked / 1e6:.1f} MB\n"
        )


def test_the_search_finds_a_canary_that_is_there() -> None:
    value = CANARIES["store"]
    for content in (value, base64.b64encode(value.encode()).decode(), f"x{value}y"):
        assert hits("here", content.encode(), {"store": value}) == ["store in here"]


def test_the_daemon_says_which_secrets_of_its_environment_jobs_do_not_get(tmp_path: Path) -> None:
    with planted(tmp_path) as daemon:
        assert "OPENAI_API_KEY in the daemon's environment is not handed on to jobs" in daemon.log()
        assert "finetune secrets set" in daemon.log()
