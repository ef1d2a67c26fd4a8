"""What is wrong with a plugin before it is asked for anything: the SDK that it is written for, and its hooks."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from types import ModuleType
from typing import Final

import pluggy

from finetuned.spelling import nearest
from finetuned_sdk import SDK_VERSION, hooks
from finetuned_sdk.errors import PluginError

DECLARATION: Final = "FINETUNED_SDK"  # what a plugin's module says it is written for, as a plain text
_VERSION: Final = re.compile(r"(\d{1,6})\.(\d{1,6})")


def check_version(module: str, present: str = SDK_VERSION) -> None:
    """Raise ``PluginError`` if a module declares another version of the SDK than the one that is there.

    The declaration is read from the source, before the module is imported: what was written for another SDK
    would otherwise be told of the first name that its import did not find. Without one nothing is checked.
    """
    for wanted in _declared(module):
        problem = misfit(wanted, present)
        if problem is not None:
            raise PluginError(problem)


def misfit(wanted: object, present: str) -> str | None:
    """Why what is written for version ``wanted`` does not fit version ``present``; ``None`` if it does.

    Versions are ``major.minor``: a major one breaks what was, a minor one adds to it.
    """
    asked, there = _VERSION.fullmatch(str(wanted)), _VERSION.fullmatch(present)
    assert there is not None
    if not isinstance(wanted, str) or asked is None:
        return (
            f"Its {DECLARATION} is {wanted!r}, which is no version of the SDK: "
            f"write the one that it is written for as a text, here {present!r}."
        )
    (major, minor), (own_major, own_minor) = map(int, asked.groups()), map(int, there.groups())
    if major == own_major and minor <= own_minor:
        return None
    said = (
        f"It is written for version {wanted} of the plugin SDK, and this release of finetuned has {present}"
    )
    if (major, minor) > (own_major, own_minor):
        return f"{said}: upgrade finetuned, or install a release of the plugin for {present}."
    return f"{said}: install a release of the plugin for {present}, or port it and declare {present!r}."


def check_hooks(plugin: ModuleType, manager: pluggy.PluginManager) -> None:
    """Raise ``PluginError`` if a module implements no hook, one that is not known, or one with other arguments."""
    known = [name for name in vars(hooks) if manager.parse_hookspec_opts(hooks, name) is not None]
    found = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        found += 1
        hook = options.get("specname") or name
        if hook in known:
            _check_arguments(hook, getattr(plugin, name))
        elif not options.get("optionalhook"):
            raise PluginError(
                f"Its hook {hook!r} is none that this release has.{nearest(hook, known)} Rename the function; "
                f"the hooks are: {', '.join(known)}."
            )
    if not found:
        raise PluginError(_without_hook(plugin, known))


def _check_arguments(hook: str, implementation: object) -> None:
    assert callable(implementation)
    known = list(inspect.signature(getattr(hooks, hook)).parameters)
    for name in inspect.signature(implementation).parameters:
        if name not in known:
            raise PluginError(
                f"Its hook {hook} takes {name!r}, which it is not given.{nearest(name, known)} Rename the "
                f"argument; it may take: {', '.join(known)}."
            )


def _without_hook(plugin: ModuleType, known: list[str]) -> str:
    unmarked = next((name for name in known if hasattr(plugin, name)), None)
    if unmarked is not None:
        return f"Its function {unmarked} is not marked as a hook: write @hookimpl of finetuned_sdk above it."
    return (
        f"It has no hook, so it adds nothing: write a function {known[0]} with @hookimpl of finetuned_sdk above "
        "it, or correct the entry point if another module has it."
    )


def _declared(module: str) -> list[object]:
    """What the module's source assigns to the declaration's name: the value of each literal, else its text."""
    spec = importlib.util.find_spec(module)
    source = getattr(spec and spec.loader, "get_source", None)
    text = source(module) if source is not None else None
    if text is None:
        return []
    found: list[object] = []
    for statement in ast.parse(text, getattr(spec, "origin", None) or module).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name == DECLARATION:
            found.append(value.value if isinstance(value, ast.Constant) else ast.unparse(value))
    return found
