"""What can be checked of a daemon without starting it: its configuration, its log, its plugins."""

from __future__ import annotations

import sqlite3

from finetuned import plugins
from finetuned.config import Config
from finetuned.domain import facts
from finetuned.domain.errors import StartError
from finetuned_events import LogError, compatibility

LOG_FILE = "events.sqlite"


def check(config: Config) -> list[str]:
    """What was found, in sentences; also while another daemon works on the log.

    Raises ``StartError`` if a daemon of this release could not start here.
    """
    found = [f"The configuration is good; the state directory is {config.state_dir}."]
    path = config.state_dir / LOG_FILE
    try:
        refused = compatibility.check(path, facts.SCHEMAS, must_exist=False)
        exists = path.exists()
    except (LogError, sqlite3.Error, OSError) as error:
        raise StartError(
            f"The log {path} cannot be opened: {str(error).rstrip('.')}. Mend what it names, or restore a backup."
        ) from None
    if refused is not None:
        raise StartError(
            f"{refused} This release is too old for it: take one at least as new as the one that wrote it."
        )
    found.append(f"The log {path} is understood." if exists else f"There is no log at {path} yet.")
    _registry, reports = plugins.load()
    found += [f"Plugin {each.name}: {each.status}." for each in reports]
    return found
