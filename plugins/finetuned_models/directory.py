"""What makes a directory a Hugging Face model or adapter, as far as files tell. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuned_sdk.errors import RefusedError

_WEIGHTS = {"adapter_config.json": "adapter_model.safetensors", "config.json": "model.safetensors"}


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A model's files. ``kind`` is full or adapter; ``base`` is the adapter's base model, if it says."""

    path: Path
    kind: str
    base: str | None
    architecture: str | None
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The size of all files together, in bytes."""
        return sum(file.stat().st_size for file in self.files)


def inspect(path: str) -> ModelDirectory:
    """Check the directory and say what it holds. Raises ``RefusedError`` with the remedy."""
    directory = Path(path).expanduser()
    if not directory.is_dir():
        raise RefusedError(
            f"There is no directory {path!r}; give the folder that holds config.json.", param="path"
        )
    config_name = next((name for name in _WEIGHTS if (directory / name).is_file()), None)
    if config_name is None:
        raise RefusedError(
            f"{path} has no config.json or adapter_config.json; give the folder that save_pretrained wrote.",
            param="path",
        )
    config = _read_json(directory / config_name)
    for weights in _weight_files(directory, _WEIGHTS[config_name]):
        _check_safetensors(weights)
    files = tuple(sorted(file for file in directory.iterdir() if file.is_file()))
    if config_name == "adapter_config.json":
        base = config.get("base_model_name_or_path")
        return ModelDirectory(directory, "adapter", base if isinstance(base, str) else None, None, files)
    if not isinstance(config.get("model_type"), str):
        raise RefusedError(
            f"{directory / config_name} names no model_type; write it with save_pretrained.", param="path"
        )
    return ModelDirectory(directory, "full", None, config["model_type"], files)


def _weight_files(directory: Path, name: str) -> list[Path]:
    if (directory / name).is_file():
        return [directory / name]
    index = directory / f"{name}.index.json"
    if not index.is_file():
        raise RefusedError(
            f"{directory} has no {name}; save the weights as safetensors (save_pretrained does).",
            param="path",
        )
    weight_map = _read_json(index).get("weight_map")
    shards = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    missing = [shard for shard in shards if not (directory / str(shard)).is_file()]
    if missing or not shards:
        named = f"{missing[0]}, which is not there" if missing else "no shard"
        raise RefusedError(f"{index} names {named}; copy the whole model again.", param="path")
    return [directory / str(shard) for shard in shards]


def _check_safetensors(file: Path) -> None:
    """The file is as long as its header says (a broken download is the usual case)."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        header_size = int.from_bytes(opened.read(8), "little")
        if size < 8 or not 2 <= header_size <= min(size - 8, 100_000_000):
            raise RefusedError(f"{file} is no safetensors file; copy the model again.", param="path")
        try:
            header = json.loads(opened.read(header_size))
            end = max(
                (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise RefusedError(
                f"The header of {file} cannot be read; copy the model again.", param="path"
            ) from error
    if size != 8 + header_size + end:
        raise RefusedError(
            f"{file} has {size} bytes where its header says {8 + header_size + end}; copy the model again.",
            param="path",
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"{file} cannot be read as JSON ({error}); copy the model again.", param="path"
        ) from error
    if not isinstance(value, dict):
        raise RefusedError(f"{file} holds no JSON object; copy the model again.", param="path")
    return value
