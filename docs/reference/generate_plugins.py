"""Writes plugins.md from the SDK: ``python docs/reference/generate_plugins.py``.

Everything on the page is a signature or a docstring. A test compares the page with what this would write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from typing_extensions import is_typeddict

import finetuned_sdk
from finetuned import plugins
from finetuned.plugin_checks import DECLARATION
from finetuned_sdk import bundle, context, errors, hooks, kinds, registry
from finetuned_sdk.testing import RecordingContext

PAGE = Path(__file__).parent / "plugins.md"
EXPLAINED = re.compile(r"^(\w+) {2,}(\S.*)$")
VARIABLE = re.compile(r'^\w+(?:: Final)? = "(FINETUNED_\w+)"  # (.*)$', re.MULTILINE)
#: what a worker's environment has besides; set in finetuned.machine.devices and finetuned.attempts.runner
OF_A_WORKER = {
    "CUDA_VISIBLE_DEVICES": "the UUIDs of the GPUs that the attempt holds; empty on a CPU slot",
    "OMP_NUM_THREADS": "on a CPU slot: the cores shared out among the slots, unless the daemon's environment says it",
    "TMPDIR": "a directory of the attempt, gone with it",
}
LINE = 100
INTRODUCTION = """\
# Plugins

What a plugin is written against, from `finetuned_sdk` by `docs/reference/generate_plugins.py`;
[Write a plugin](../how-to/write-a-plugin.md) shows it at work. All names are imported from `finetuned_sdk` itself. The daemon
finds plugins by the entry-point group `finetuned`, and imports declarations only: no torch there. The work, named by
`"module:function"`, is imported in a worker process.
"""

VERSION = f"""\
## Version of the SDK

It is {finetuned_sdk.SDK_VERSION}, `finetuned_sdk.SDK_VERSION`. A major version breaks what plugins rely on, a minor one adds to it.
The module of a plugin's entry point says in `{DECLARATION}`, a plain text, which one it is written for:
`{DECLARATION} = "{finetuned_sdk.SDK_VERSION}"` is loaded where the version is that or a later one of the same major version, and
reported as broken elsewhere. It is read from the source before the module is imported; without it nothing is checked.
"""


def page() -> str:
    """The whole page."""
    sections = [
        INTRODUCTION,
        VERSION,
        "## Hooks\n",
        *(_function(hook, 3) for hook in hook_specifications()),
        "## Environment of the daemon\n",
        _table("variable | ", _variables(plugins)),
        "## Environment of a worker\n",
        "That of the daemon without its settings and without what says secret by its name, with the job's own secrets, and:\n",
        _table(
            "variable | ",
            [*_variables(bundle), *(f"| `{name}` | {text} |" for name, text in OF_A_WORKER.items())],
        ),
        "## What a plugin declares\n",
        _class(registry.Registry),
        *(_class(each) for each in _classes(kinds)),
        "## What a worker is given\n",
        *(_class(each) for each in _classes(context)),
        "## Errors to raise\n",
        *(_class(each) for each in _classes(errors)),
        "## For tests: `finetuned_sdk.testing`\n",
        _class(RecordingContext),
    ]
    return "\n".join(sections)


def hook_specifications() -> list[Any]:
    """The functions that are marked as specifications of hooks."""
    return [each for each in vars(hooks).values() if hasattr(each, f"{hooks.PROJECT_NAME}_spec")]


def public_names() -> Iterator[str]:
    """What an author may import and finds on the page."""
    others = {"PROJECT_NAME", "SDK_VERSION", "hookspec", "hookimpl"}
    yield from (name for name in finetuned_sdk.__all__ if name not in others)


def prose(documented: Any) -> str:
    """A docstring as Markdown, without what it says of single fields."""
    return "\n".join(line for line in _text(documented).splitlines() if not _is_of_a_field(line)).strip()


def explained(documented: Any) -> dict[str, str]:
    """What a docstring says of single fields, as ``name  meaning`` with its further lines indented."""
    found: dict[str, str] = {}
    for line in _text(documented).splitlines():
        if match := EXPLAINED.match(line):
            found[match[1]] = match[2]
        elif found and _is_of_a_field(line):
            found[list(found)[-1]] += f" {line.strip()}"
    return found


def _is_of_a_field(line: str) -> bool:
    return line.startswith("     ") or EXPLAINED.match(line) is not None


def _text(documented: Any) -> str:
    text = inspect.cleandoc(documented.__doc__ or "")
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def _classes(module: Any) -> list[type]:
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]


def _class(each: type) -> str:
    parts = [f"### {each.__name__}\n"]
    if code := vars(each).get("code"):
        parts.append(f"Code `{code}`; derived from `{each.__bases__[0].__name__}`.\n")
    parts.append(f"{prose(each)}\n")
    if is_dataclass(each):
        parts.append(_table("field | type | default | ", _fields(each)))
    elif is_typeddict(each):
        rows = (f"| `{name}` | `{_cell(kind)}` |" for name, kind in vars(each)["__annotations__"].items())
        parts.append(_table("key | type", rows))
    if each is RecordingContext:
        parts.append(f"{_signature('RecordingContext', each)}\n")
    parts += [_member(name, member) for name, member in vars(each).items() if _is_shown(name, member)]
    return "\n".join(parts)


def _table(columns: str, rows: Iterable[str]) -> str:
    return "\n".join([f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|", *rows, ""])


def _is_shown(name: str, member: Any) -> bool:
    return not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        assert member.fget is not None
        kind = inspect.signature(member.fget).return_annotation
        return f"#### `{name}: {kind}`\n\n{prose(member)}\n"
    return _function(member, 4)


def _function(function: Any, level: int) -> str:
    return f"{'#' * level} {function.__name__}\n\n{_signature(function.__name__, function)}\n\n{prose(function)}\n"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    arguments = [_unquoted(str(each)) for each in signature.parameters.values() if each.name != "self"]
    by_name = [
        each.kind is each.KEYWORD_ONLY for each in signature.parameters.values() if each.name != "self"
    ]
    if any(by_name):
        arguments.insert(by_name.index(True), "*")
    end = _unquoted(f") -> {signature.return_annotation}: ...")
    line = f"def {name}({', '.join(arguments)}{end}"
    if len(line) > LINE:
        line = "\n".join([f"def {name}(", *(f"    {each}," for each in arguments), end])
    return f"```python\n{line}\n```"


def _unquoted(text: str) -> str:
    """Annotations are kept as text, which is shown in quotes; what else is quoted is as ruff has it."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).replace("'", '"')


def _fields(each: type) -> Iterator[str]:
    meanings = explained(each)
    for field in fields(each):
        default = "required"
        if field.default is not MISSING:
            default = f"`{field.default!r}`"
        elif field.default_factory is not MISSING:
            default = f"`{field.default_factory()!r}`"
        yield f"| `{field.name}` | `{_cell(field.type)}` | {default} | {meanings.get(field.name, '')} |"


def _cell(text: Any) -> str:
    kind = getattr(text, "__forward_arg__", text)
    return str(kind).replace("|", "\\|")


def _variables(module: ModuleType) -> Iterator[str]:
    for name, meaning in VARIABLE.findall(inspect.getsource(module)):
        yield f"| `{name}` | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
