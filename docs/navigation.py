"""What mkdocs asks while it builds the site: the navigation, the pages that lie elsewhere, and a last look.

The navigation is made of the folders, so a new page is in it without being listed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS: Final = Path(__file__).parent
ROOT: Final = DOCS.parent
SECTIONS: Final = {
    "Tutorial": "tutorial",
    "How-to": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
    "Decisions": "decisions",
}
#: files at the root of the repository -> pages of the site
ROOT_PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "readme.md",
}
LINK: Final = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
CELL: Final = re.compile(r"<td[ >].*?</td>", re.DOTALL)
FETCHED: Final = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//'
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: sections by kind, in each the pages by name, a folder's own page first."""
    nav: list[Any] = [{"finetuned": "index.md"}]
    for title, folder in SECTIONS.items():
        pages = sorted((DOCS / folder).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
        nav.append({title: [path.relative_to(DOCS).as_posix() for path in pages]})
    nav += [{"Reliability": "reliability.md"}, {"Benchmarks": "benchmarks.md"}]
    nav += [page for name, page in ROOT_PAGES.items() if (ROOT / name).exists()]
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in the pages that lie at the root of the repository."""
    for name, page in ROOT_PAGES.items():
        if (ROOT / name).exists() and files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to and from those pages find their ends; a link to a source file becomes its words alone."""
    is_generated = page.file.abs_src_path is None
    folder = ROOT if is_generated else (DOCS / page.file.src_uri).parent
    up = "../" * (len(Path(page.file.src_uri).parts) - 1)

    def rewritten(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        if target.is_relative_to(DOCS):
            inside = target.relative_to(DOCS).as_posix()
        elif target.parent == ROOT and target.name in ROOT_PAGES:
            inside = ROOT_PAGES[target.name]
        else:
            return link["text"] if target.exists() else link[0]
        return f"[{link['text']}]({up}{inside}{link['anchor'] or ''})"

    return LINK.sub(rewritten, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """GitHub wants a bar within a table's code escaped, this Markdown shows the escape: take it away."""
    return CELL.sub(lambda cell: cell[0].replace("\\|", "|"), html)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Refuse a page that would have its reader's browser fetch something from elsewhere."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch something from the net: {found[0]}")
    return output
