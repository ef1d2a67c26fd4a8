"""What a real worker clears away: its scratch after a full disk, and what dead attempts left half done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from finetuned.attempts.testing import fake_spec
from finetuned_sdk.bundle import Bundle
from finetuned_sdk.spool import Fact, parse


def work(bundle: Bundle, attempt: int, body: str, directory: Path) -> list[Fact]:
    """Run a worker whose entry is the function body given; its facts."""
    (directory / "entry.py").write_text(f"import errno\ndef run(ctx, params):\n{body}")
    bundle.create(fake_spec(attempt=attempt, entry="entry:run"))
    subprocess.run(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
        env={**os.environ, "PYTHONPATH": str(directory)},
        timeout=30,
        check=False,
        capture_output=True,
    )
    lines, _ = parse(bundle.spool_path.read_bytes(), after=0)
    return [line for line in lines if isinstance(line, Fact)]


def test_a_worker_that_found_the_disk_full_gives_its_scratch_back(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")
    body = (
        "    (ctx.work_dir / 'half').mkdir()\n"
        "    (ctx.work_dir / 'half' / 'weights').write_text('x')\n"
        "    (ctx.work_dir / 'rows.arrow').write_text('x')\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
    )
    last = work(bundle, 1, body, tmp_path)[-1]
    assert (last.type, last.data["code"], last.data["retryable"]) == ("error", "disk_full", True)
    assert list(bundle.work.iterdir()) == []


def test_scratch_that_may_explain_another_failure_stays_until_the_next_attempt(tmp_path: Path) -> None:
    first, second = (Bundle(tmp_path / "jobs" / "job-1" / "attempts" / number) for number in "12")
    left = "    (ctx.work_dir / 'rows.arrow').write_text('x')\n    raise RuntimeError('as if')\n"
    work(first, 1, left, tmp_path)
    assert [path.name for path in first.work.iterdir()] == ["rows.arrow"]
    assert work(second, 2, "    pass\n", tmp_path)[-1].type == "result"
    assert list(first.work.iterdir()) == []
