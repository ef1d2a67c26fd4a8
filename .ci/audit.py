"""Whether what is installed is what was pinned, and whether anything of it is known to be bad.

    pins        every installed package stands in requirements.lock in that version, with hashes; so do the pins of
                constraints.txt
    yanked      pip's report of the installation names no release that its authors took back
    advisories  pip-audit finds none; where no database of them answers, that is said and is no success

``--strict`` counts what could not be looked at as a failure. Run by ``make audit`` with the interpreter to look at.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"
REPORT = Path(sys.prefix) / "installed.json"
OURS = {"finetuned", "pip"}
WITH_TORCH = re.compile(r"torch|triton|nvidia-(?!ml-py$).+|cuda-.+")  # comes with torch, from its own index
TIMEOUT_S = 300


def canonical(name: str) -> str:
    """A project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Name to version of each ``name==version``."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonical(name): version for name, version in found}


def unpinned(lock: str, constraints: str, installed: dict[str, str]) -> list[str]:
    """What differs between the lock, the constraints and what is installed, a sentence each."""
    locked, constrained = pins(lock), pins(constraints)
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    problems = [
        f"{block.split()[0]} has no hash in {LOCK.name}" for block in blocks if "--hash=" not in block
    ]
    for name, version in constrained.items():
        if not WITH_TORCH.fullmatch(name) and locked.get(name) != version:
            problems.append(f"{name}: {CONSTRAINTS.name} pins {version}, {LOCK.name} {locked.get(name)}")
    for name in locked.keys() - constrained.keys():
        problems.append(f"{name}=={locked[name]} is in {LOCK.name} and not pinned in {CONSTRAINTS.name}")
    for name, version in installed.items():
        if name in OURS or (WITH_TORCH.fullmatch(name) and name != "torch"):
            continue
        wanted = constrained.get(name) if name == "torch" else locked.get(name)
        if wanted != version.partition("+")[0]:  # torch's builds differ after the +
            problems.append(f"{name} is installed in {version} and pinned to {wanted}")
    return problems


def yanked(report: Path) -> list[str] | None:
    """Releases of the installation that their authors took back; ``None`` where pip's report is not there."""
    if not report.exists():
        return None
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [
        f"{each['metadata']['name']}=={each['metadata']['version']} was taken back by its authors"
        for each in installed
        if each.get("is_yanked")
    ]


def advisories(pip_audit: str) -> tuple[list[str], int]:
    """What pip-audit has found, and of how many packages it was told nothing."""
    command = [pip_audit, "-r", str(LOCK), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        packages = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return [], len(pins(LOCK.read_text(encoding="utf-8")))
    known = [
        f"{package['name']}=={package['version']}: {advisory['id']}, mended in {', '.join(advisory['fix_versions'])}"
        for package in packages
        for advisory in package.get("vulns", ())
    ]
    return known, sum("skip_reason" in package for package in packages)


def main(arguments: list[str]) -> int:
    """Look at all three and say what was found. The exit code."""
    installed = {canonical(each.name): each.version for each in importlib.metadata.distributions()}
    lock = LOCK.read_text(encoding="utf-8")
    problems = unpinned(lock, CONSTRAINTS.read_text(encoding="utf-8"), installed)
    unseen = []
    print(f"pins: {len(pins(lock))} packages with {lock.count('--hash=')} hashes, {len(installed)} installed")
    if (taken_back := yanked(REPORT)) is None:
        unseen.append("yanked: NOT LOOKED AT; there is no report of the installation (make a new .venv)")
    else:
        problems += taken_back
        print(f"yanked: {len(taken_back)}, as far as the index tells")
    pip_audit = next(iter(arguments[:1]), "") or shutil.which("pip-audit") or "pip-audit"
    known, untold = advisories(pip_audit)
    problems += known
    if untold:
        unseen.append(f"advisories: NOT LOOKED AT for {untold} packages; no database of them answers here")
    else:
        print(f"advisories: {len(known)}")
    print("\n".join([*unseen, *problems]) or "Nothing was found.")
    return 1 if problems or (unseen and "--strict" in arguments) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
