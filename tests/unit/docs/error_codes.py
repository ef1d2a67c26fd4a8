"""Which codes of errors the source gives out, found by reading it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = ("daemon/finetuned", "events/finetuned_events")
CARRIERS = {"Rejected", "document"}  # calls whose first argument is a code


def codes() -> dict[str, set[str]]:
    """Each code, and the files that give it out."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for code in _in(node):
                    found.setdefault(code, set()).add(str(path.relative_to(ROOT)))
    return found


def owners() -> dict[str, set[str]]:
    """The classes whose own code each code is."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    for code in (code for statement in node.body for code in _in(statement)):
                        found.setdefault(code, set()).add(node.name)
    return found


def _in(node: ast.AST) -> Iterator[str]:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id="code")], value=value)
            | ast.AnnAssign(target=ast.Name(id="code"), value=ast.expr() as value)
        ):
            yield from _texts(value)
        case ast.AnnAssign(target=ast.Name(id="CODES"), value=ast.Dict(values=values)):
            for each in values:
                yield from _texts(each)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
            if name in CARRIERS and args:
                yield from _texts(args[0])
            for keyword in keywords:
                if keyword.arg == "code":
                    yield from _texts(keyword.value)


def _texts(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)
