"""Write requirements.lock: every package of every extra, pinned as in constraints.txt, with the hashes of its files.

uv resolves; what is left out is said in the file. ``make lock`` runs this after a change of the dependencies.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """\
# Every package of every extra with the hashes of its files: pip install --require-hashes --no-deps -r requirements.lock
# Written by `make lock` from pyproject.toml and constraints.txt; a test compares the three.
# Not in it: torch and what only torch asks for (nvidia-*, cuda-*, triton). Its build for CPUs and its build for CUDA are
# different files of one version, from different indexes, so it is installed first and by version.
"""
LEFT_OUT = re.compile(r"(?:torch|triton|nvidia-(?!ml-py\b)[\w-]+|cuda-[\w-]+)$")
ELSEWHERE = re.compile(r"(?:sys_platform|platform_system) == '(?:win32|emscripten|darwin|Windows)'")


def main(uv: str) -> int:
    """Resolve, filter and write. The exit code."""
    command = [
        uv, "pip", "compile", "pyproject.toml", "--all-extras", "-c", "constraints.txt", "--generate-hashes",
        "--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet",
    ]  # fmt: skip
    resolved = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if resolved.returncode:
        sys.stderr.write(resolved.stderr)
        return resolved.returncode
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", resolved.stdout, re.MULTILINE | re.DOTALL)
    kept = [block for block in blocks if not _is_left_out(block)]
    (ROOT / "requirements.lock").write_text(HEAD + "".join(kept), encoding="utf-8")
    print(f"requirements.lock: {len(kept)} packages, {''.join(kept).count('--hash=')} hashes")
    return 0


def _is_left_out(block: str) -> bool:
    first = block.splitlines()[0]
    return bool(LEFT_OUT.match(first.partition("==")[0]) or ELSEWHERE.search(first))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "uv"))
