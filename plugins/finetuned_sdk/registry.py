"""The registry that a plugin fills in its ``finetuned_register`` hook."""

from __future__ import annotations

import re

from finetuned_sdk.errors import PluginError
from finetuned_sdk.kinds import Callback, EngineKind, JobKind

_ENTRY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Registry:
    """Job kinds and callbacks by name. The first plugin to take a name keeps it; a second is an error."""

    def __init__(self) -> None:
        self.job_kinds: dict[str, JobKind] = {}
        self.callbacks: dict[str, Callback] = {}

    def job_kind(self, kind: JobKind) -> None:
        """Add a job kind. Raises ``PluginError`` if the name is taken or an entry is malformed."""
        for entry in (kind.entry, kind.validator):
            _check_entry(f"job kind {kind.name!r}", entry)
        if kind.name in self.job_kinds:
            raise PluginError(
                f"Two plugins declare the job kind {kind.name!r}; block one of them with FINETUNED_BLOCK_PLUGINS."
            )
        self.job_kinds[kind.name] = kind

    @property
    def engines(self) -> dict[str, EngineKind]:
        """The kinds of engines by name; they are job kinds too."""
        return {name: kind for name, kind in self.job_kinds.items() if isinstance(kind, EngineKind)}

    def callback(self, callback: Callback) -> None:
        """Add a callback. Raises ``PluginError`` if the name is taken or its entry is malformed."""
        _check_entry(f"callback {callback.name!r}", callback.entry)
        if callback.name in self.callbacks:
            raise PluginError(
                f"Two plugins declare the callback {callback.name!r}; block one of them with FINETUNED_BLOCK_PLUGINS."
            )
        self.callbacks[callback.name] = callback

    def take(self, declared: Registry) -> None:
        """Add all that another registry has, or nothing of it: raises ``PluginError`` if one of its names is taken."""
        together = Registry()
        for kind in (*self.job_kinds.values(), *declared.job_kinds.values()):
            together.job_kind(kind)
        for callback in (*self.callbacks.values(), *declared.callbacks.values()):
            together.callback(callback)
        self.job_kinds, self.callbacks = together.job_kinds, together.callbacks


def _check_entry(what: str, entry: str | None) -> None:
    if entry is not None and not _ENTRY.match(entry):
        raise PluginError(f"The entry {entry!r} of {what} must read 'package.module:function'.")
