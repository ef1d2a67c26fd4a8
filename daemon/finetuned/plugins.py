"""Plugins: found by entry point, blocked and traced by environment variable, registered through one hook."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

import pluggy

from finetuned.plugin_checks import check_hooks, check_version
from finetuned_sdk import PROJECT_NAME, Registry, hooks
from finetuned_sdk.errors import PluginError

BLOCK = "FINETUNED_BLOCK_PLUGINS"  # names of entry points, comma-separated
EXTRA = "FINETUNED_EXTRA_PLUGINS"  # modules to load besides, comma-separated: plugins that are not packaged
TRACE = "FINETUNED_TRACE_PLUGINS"  # any value: log every hook call

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginReport:
    """What became of one plugin: loaded, blocked or broken, and why."""

    name: str
    module: str
    status: str
    reason: str | None = None


def load(environment: Mapping[str, str] = os.environ) -> tuple[Registry, list[PluginReport]]:
    """Load every plugin into a fresh registry.

    A plugin that is written for another SDK, cannot be imported, misspells a hook or takes a name that is taken is
    reported as broken and left out as a whole: it must not keep the daemon, and the jobs of other plugins, from starting.
    """
    blocked = _names(environment.get(BLOCK))
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(hooks)
    if environment.get(TRACE):
        manager.trace.root.setwriter(lambda message: log.info("%s", message.rstrip()))
        manager.enable_tracing()
    registry = Registry()
    reports = [
        PluginReport(name, module, "blocked", f"{BLOCK} names it")
        if name in blocked
        else _load_one(manager, registry, name, module)
        for name, module in _found(_names(environment.get(EXTRA)))
    ]
    for report in reports:
        if report.status == "broken":
            log.error("Plugin %s (%s) is left out: %s", report.name, report.module, report.reason)
    return registry, reports


def _found(extra: Iterable[str]) -> list[tuple[str, str]]:
    points = sorted(metadata.entry_points(group=PROJECT_NAME), key=lambda point: point.name)
    return [*((point.name, point.value) for point in points), *((module, module) for module in sorted(extra))]


def _load_one(manager: pluggy.PluginManager, registry: Registry, name: str, module: str) -> PluginReport:
    declared = Registry()
    try:
        check_version(module)
        plugin = importlib.import_module(module)
        check_hooks(plugin, manager)
        manager.register(plugin, name=name)
        # Called for this plugin alone, so that what one declares wrongly is not held against another.
        others = [each for each in manager.get_plugins() if each is not plugin]
        manager.subset_hook_caller("finetuned_register", others)(register=declared)
        registry.take(declared)
    except PluginError as error:
        return _broken(manager, name, module, error.message)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's import may raise anything
        return _broken(manager, name, module, f"{type(error).__name__}: {error}")
    return PluginReport(name, module, "loaded")


def _broken(manager: pluggy.PluginManager, name: str, module: str, reason: str) -> PluginReport:
    if manager.has_plugin(name):
        manager.unregister(name=name)
    return PluginReport(name, module, "broken", reason)


def _names(value: str | None) -> set[str]:
    return {name.strip() for name in (value or "").split(",") if name.strip()}
