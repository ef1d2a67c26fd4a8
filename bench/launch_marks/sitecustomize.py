"""Has every ``Trainer`` note when its first step begins and ends, and its loss. Python imports this file at its start.

So the same marks are set in a program that is not ours and in a worker, whatever starts them.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULE = "transformers.trainer_callback"


def mark(**noted: Any) -> None:
    """Append a line."""
    path = os.environ.get("LAUNCH_MARKS")
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - at each start of Python: nothing is imported for it
            file.write(json.dumps({"at": time.time(), "cpu": time.process_time(), **noted}) + "\n")


def watch(module: ModuleType) -> None:
    """Wrap what tells callbacks of steps."""
    handler: Any = module.CallbackHandler
    begin, end, log = handler.on_step_begin, handler.on_step_end, handler.on_log

    def on_step_begin(self: Any, args: Any, state: Any, control: Any) -> Any:
        if state.global_step == 0:
            mark(what="begin")
        return begin(self, args, state, control)

    def on_step_end(self: Any, args: Any, state: Any, control: Any) -> Any:
        if state.global_step == 1:
            mark(what="end")
        return end(self, args, state, control)

    def on_log(self: Any, args: Any, state: Any, control: Any, logs: Any, **rest: Any) -> Any:
        if state.global_step == 1 and "loss" in logs:
            mark(what="loss", loss=logs["loss"])
        return log(self, args, state, control, logs, **rest)

    handler.on_step_begin, handler.on_step_end, handler.on_log = on_step_begin, on_step_end, on_log


class Finder:
    """Finds the one module, to wrap it once it is executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The module's own specification, with a loader that wraps."""
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "LAUNCH_MARKS" in os.environ:
    sys.meta_path.insert(0, Finder())
