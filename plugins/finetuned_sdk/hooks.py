"""Hook specifications: the moments at which the daemon asks its plugins something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from finetuned_sdk.registry import Registry

PROJECT_NAME = "finetuned"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def finetuned_register(register: Registry) -> None:
    """Declare job kinds and callbacks.

    Called once, when the daemon starts and before the log is opened, in the daemon's own process: keep it
    instant and import neither torch nor anything that does. A name that is taken already is refused with
    ``PluginError`` and the daemon says which two plugins want it.
    """
