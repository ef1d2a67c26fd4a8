"""``/openapi.json``, and the same for people at ``/docs``: one page without scripts, so that it works offline.

Both are open: they are the same for every installation and tell nothing about this one.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

import anyio.to_thread
import orjson
from aiohttp import web

from finetuned import __version__
from finetuned.api.doors import DESCRIPTION

Json = Any

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } summary b { display: inline-block; width: 4.5rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; } pre { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; }
nav a { margin-right: .8rem; } small { opacity: .7; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def description(request: web.Request) -> web.StreamResponse:
    """The API as OpenAPI 3.1."""
    return web.Response(body=await _described(request.app), content_type="application/json")


async def page(request: web.Request) -> web.StreamResponse:
    """The API for people."""
    document = orjson.loads(await _described(request.app))
    text = await anyio.to_thread.run_sync(render, document)
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def _described(app: web.Application) -> bytes:
    description = app[DESCRIPTION]
    if not description:
        description.append(await anyio.to_thread.run_sync(_describe))
    return description[0]


def _describe() -> bytes:
    from finetuned.api import routes  # noqa: PLC0415 - the table names this module
    from finetuned.api.openapi import OpenOperation, document  # noqa: PLC0415 - heavy, and rarely asked for

    open_operations = [
        OpenOperation(each.method, each.path, each.summary, each.answer) for each in routes.OPEN_ROUTES
    ]
    return orjson.dumps(document(routes.ROUTES, open_operations, version=__version__))


def render(document: Json) -> str:
    """An OpenAPI document as one HTML page."""
    tags = [tag["name"] for tag in document["tags"]]
    if "daemon" not in tags:
        tags.append("daemon")
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a> ' for tag in tags)
    sections = "".join(_section(tag, document) for tag in tags)
    shapes = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_schema(schema)}</details>'
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{_prose(info['description'])}</p>"
        f'<p><a href="openapi.json">openapi.json</a></p><nav>{links}<a href="#shapes">shapes</a></nav>'
        f'{sections}<h2 id="shapes">shapes</h2>{shapes}</body></html>'
    )


def _section(tag: str, document: Json) -> str:
    found = [
        _operation(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if tag in operation.get("tags", [])
    ]
    return f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(found)}'


def _operation(method: str, path: str, operation: Json) -> str:
    scope = operation.get("x-scope", "open")
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['in'])}</td>"
        f"<td>{_type(each['schema'])}</td><td>{_prose(each.get('description', ''))}</td></tr>"
        for each in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {}).get("content", {})
    answers = [
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{_content(answer.get('content', {}))}</td></tr>"
        for status, answer in operation["responses"].items()
    ]
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b> <code>{escape(path)}</code> '
        f"{escape(operation['summary'])} <small>{escape(scope)}</small></summary>"
        f"<p>{_prose(operation.get('description', ''))}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<p>Body: {_content(body)}</p>" if body else "")
        + f"<table>{''.join(answers)}</table></details>"
    )


def _content(content: Json) -> str:
    return ", ".join(
        f"{_type(each['schema'])} <small>{escape(media)}</small>" for media, each in content.items()
    )


def _schema(schema: Json) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else ' <small>optional</small>'}</td>"
        f"<td>{_type(each)}</td><td>{_prose(each.get('description', ''))}</td></tr>"
        for name, each in schema.get("properties", {}).items()
    )
    return f"<p>{_prose(schema.get('description', ''))}</p><table>{rows}</table>"


def _type(schema: Json) -> str:
    """A schema in few words, with links to what has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    if options := schema.get("anyOf"):
        return " or ".join(_type(each) for each in options)
    if "enum" in schema or "const" in schema:
        return ", ".join(
            f"<code>{escape(str(each))}</code>" for each in schema.get("enum", [schema.get("const")])
        )
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    limits = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return escape(" ".join([kind, *limits]))


def _prose(text: str) -> str:
    """Text whose backticks mark code."""
    parts = text.replace("``", "`").split("`")
    return "".join(
        f"<code>{escape(part)}</code>" if odd % 2 else escape(part) for odd, part in enumerate(parts)
    )
