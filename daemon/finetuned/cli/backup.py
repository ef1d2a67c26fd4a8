"""``backup`` and ``restore``: copies of a state directory, made and put back without the daemon's help."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from finetuned import config, config_sources
from finetuned.backups import making, restoring
from finetuned.backups.manifest import Manifest
from finetuned.cli import console, offline, units
from finetuned.cli.session import json_option
from finetuned.cli.shapes import BackupMade, Restored
from finetuned.domain.errors import ConfigError
from finetuned.wire import BackupReport, VerifyReport

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The daemon's state directory. Default: that of the configuration.",
)


@click.command
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--include",
    "includes",
    metavar="PARTS",
    default="",
    help="Copy these too, separated by commas: models, datasets, archives, checkpoints (of jobs that have not ended).",
)
@state_dir_option
@json_option(shape=BackupMade)
def backup(*, directory: Path, includes: str, state_dir: Path | None, as_json: bool) -> None:
    """Copy the log and what live jobs need into a new DIRECTORY, and list models and datasets.

    A daemon may go on meanwhile. Run it as the daemon's user, on its machine. Values of secrets are never copied.
    """
    wanted = [part for part in includes.split(",") if part]
    if unknown := sorted(set(wanted) - set(making.PARTS)):
        raise click.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(making.PARTS)}", param_hint="--include"
        )
    source = _state_dir(state_dir)
    target = directory.expanduser().absolute()
    made = making.make(
        source,
        target,
        includes=wanted,
        copy_log=lambda path: _copy_log(source, path),
        configuration=_configuration(),
    )
    if as_json:
        console.emit(_made(made, target))
        return
    console.say(f"{target}: {units.size(made.bytes)}, up to event {made.head['seq']}.")
    _say_left_out(made)


@click.command
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@state_dir_option
@click.option(
    "--log-only", is_flag=True, help="Put back only the log; the present one is kept aside, files stay."
)
@click.option("--check", "only_check", is_flag=True, help="Read the backup through, and put nothing back.")
@json_option(shape=Restored)
def restore(
    *, directory: Path, state_dir: Path | None, log_only: bool, only_check: bool, as_json: bool
) -> None:
    """Put a backup of `finetune backup` back into an empty state directory, while no daemon runs there."""
    backup_dir = directory.expanduser().absolute()
    target = _state_dir(state_dir)
    aside: Path | None = None
    if only_check:
        found = restoring.examine(backup_dir, _verify)
    elif log_only:
        found, aside = restoring.restore_log(backup_dir, target, _verify)
    else:
        found = restoring.restore(backup_dir, target, _verify)
    if as_json:
        restored: Restored = {
            **_made(found, backup_dir),
            "state_dir": None if only_check else str(target),
            "former_log": None if aside is None else str(aside),
        }
        console.emit(restored)
        return
    where = "It holds" if only_check else f"Restored to {target}"
    console.say(f"{where}: {len(found.files)} files, up to event {found.head['seq']}, made {found.made_at}.")
    if aside is not None:
        console.note(f"The former log is in {aside}.")
    _say_left_out(found)
    if not only_check and found.state_dir != str(target):
        console.note(
            f"The log names files below {found.state_dir}: what is now below {target} is not found by it."
        )


def _state_dir(given: Path | None) -> Path:
    return (config.load().state_dir if given is None else given).expanduser().absolute()


def _configuration() -> Path | None:
    try:
        return config_sources.read().path
    except ConfigError:
        return None


def _copy_log(source: Path, target: Path) -> BackupReport:
    return anyio.run(offline.backup, source, target)


def _verify(directory: Path) -> VerifyReport:
    return anyio.run(offline.verify, directory)


def _made(found: Manifest, path: Path) -> BackupMade:
    return {
        "path": str(path),
        "made_at": found.made_at,
        "head": {"seq": found.head["seq"], "hash": found.head["hash"]},
        "files": len(found.files),
        "bytes": found.bytes,
        "listed": [
            {
                "what": each.what,
                "name": each.name,
                "path": each.path,
                "bytes": each.bytes,
                "sha256": each.sha256,
                "included": each.included,
                "reason": each.reason,
            }
            for each in found.listed
        ],
    }


def _say_left_out(found: Manifest) -> None:
    for each in found.listed:
        if not each.included:
            console.note(f"Not included: {each.what} {each.name} ({units.size(each.bytes)}): {each.reason}.")
    console.note("Not included: values of secrets, and what jobs printed.")
