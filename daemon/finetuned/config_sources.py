"""Where configuration comes from: a TOML file, the environment, the command line. What it means is ``config``'s business.

Imports nothing heavy: who only wants to know where the daemon's socket is need not wait for a validator.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuned.domain.errors import ConfigError

SYSTEM_FILE = Path("/etc/finetuned/config.toml")
SOCKET_NAME = "finetuned.sock"  # in the state directory

#: environment variable -> key
VARIABLES = {
    "FINETUNED_STATE_DIR": "state_dir",
    "FINETUNED_SOCKET": "socket",
    "FINETUNED_LISTEN": "listen",
}


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the daemon keeps everything: ``$XDG_STATE_HOME/finetuned`` or ``~/.local/state/finetuned``."""
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".local" / "state"
    return Path(home) / "finetuned"


@dataclass(frozen=True, slots=True)
class Sources:
    """What was given, by where it was given; later ones win over earlier ones."""

    path: Path | None
    defaults: Mapping[str, Any]
    in_file: Mapping[str, Any]
    in_environment: Mapping[str, Any]
    given: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """All of them together."""
        return {**self.defaults, **self.in_file, **self.in_environment, **self.given}

    def where(self, key: str) -> str:
        """Where the value in force of ``key`` stands, in words that begin a sentence."""
        if key in self.given:
            return "The command line"
        if key in self.in_environment:
            return next(variable for variable, name in VARIABLES.items() if name == key)
        if key in self.in_file and self.path is not None:
            return f"{self.path}{_line_of(key, self.path)}"
        return "The configuration"

    def source(self, key: str) -> str:
        """The same for a table: ``command line``, a variable, a file with its line, or ``default``."""
        where = self.where(key)
        return {"The command line": "command line", "The configuration": "default"}.get(where, where)


def find_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file in force: the one named, else the system's, else the user's; ``None`` for none."""
    if named := environ.get("FINETUNED_CONFIG"):
        return Path(named)
    config_home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config"
    for path in (SYSTEM_FILE, Path(config_home) / "finetuned" / "config.toml"):
        if path.is_file():
            return path
    return None


def read(
    file: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Sources:
    """What was given. ``file`` and ``overrides`` are the command line's. Raises ``ConfigError`` for an unreadable file."""
    path = Path(file) if file else find_file(environ)
    return Sources(
        path=path,
        defaults={"state_dir": default_state_dir(environ)},
        in_file={} if path is None else _read(path),
        in_environment={key: environ[name] for name, key in VARIABLES.items() if name in environ},
        given={key: value for key, value in (overrides or {}).items() if value is not None},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; correct --config or FINETUNED_CONFIG.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check its owner and mode.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}. Correct that line.") from None


def _line_of(key: str, path: Path) -> str:
    """``, line N`` where the key or its table stands, if it stands there plainly."""
    pattern = re.compile(rf"\s*(?:\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if pattern.match(line):
            return f", line {number}"
    return ""
