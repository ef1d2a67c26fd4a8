"""The files of a new plugin: templates of this package with its names filled in, written into a new directory."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

from finetuned.domain.errors import Rejected
from finetuned.skeleton.names import PluginName
from finetuned_sdk import SDK_VERSION

FILES: Final = Path(__file__).parent / "files"
SUFFIX: Final = ".template"  # so that no tool takes them for the project's own source
PACKAGE: Final = "package"  # the directory that is called as the new package is


def render(name: PluginName) -> dict[str, str]:
    """Each file of the plugin by its path in the plugin's directory, in order."""
    values = {
        "kind": name.kind,
        "distribution": name.distribution,
        "package": name.package,
        "sdk": SDK_VERSION,
    }
    found: dict[str, str] = {}
    for file in FILES.rglob(f"*{SUFFIX}"):
        first, *rest = file.relative_to(FILES).with_suffix("").parts
        path = "/".join([name.package if first == PACKAGE else first, *rest])
        found[path] = Template(file.read_text("utf-8")).substitute(values)
    return dict(sorted(found.items()))


def write(name: PluginName, parent: Path) -> Path:
    """Write the plugin into a new directory of ``parent``, which is made if it is not there; the new directory.

    Raises ``Rejected`` if there is something of that name, and ``OSError``.
    """
    root = parent / name.distribution
    parent.mkdir(parents=True, exist_ok=True)
    try:
        root.mkdir()
    except FileExistsError:
        raise Rejected(
            "plugin_exists",
            f"{root} is there already; choose another name, or another place with --directory.",
            param="NAME",
        ) from None
    for path, text in render(name).items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return root
