"""Which engine answers for a model: the model beneath, and the adapter over it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.domain import model_names
from finetuned.domain.engines import Wanted, key_of
from finetuned.domain.errors import InvalidRequestError, ModelNotFoundError, PermissionDeniedError
from finetuned.domain.registers import Alias, Model
from finetuned.spelling import nearest
from finetuned_sdk import EngineKind
from finetuned_sdk.engines.engine import Adapter

Json = Any

ADAPTER = "adapter"  # the kind of a model that lies over another
LARGEST_CONFIG: Final = 1 << 20  # bytes of an adapter's configuration
_BASE: Final = "base_model_name_or_path"  # in it, the model beneath


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What answers for a model. ``base`` is a directory or a hub id; ``model`` the name as it was asked for."""

    model: str
    base: str
    adapter: Adapter | None = None

    def wanted(self, kind: EngineKind, params: Mapping[str, Json], *, since: int = 0) -> Wanted:
        """The engine to ask for, with these parameters of its kind."""
        return Wanted(kind=kind.name, params=params, model=self.model, since=since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What model names stand for now. ``paths`` are those that an adapter's directory may name as the model beneath.

    ``checkpoints`` are those that are kept of the ones that are named: the directory, and the model beneath.
    """

    models: Mapping[str, Model]
    aliases: Mapping[str, Alias]
    checkpoints: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    paths: PathPolicy = NOWHERE

    def target(self, name: str, *, over: tuple[str, ...] = ()) -> Target:
        """What answers for a name: a registered model, an alias, an ``ft:`` name, a directory or a hub id.

        ``over`` are the adapters that lie over it. Looks into directories, so call it off the event loop. Raises
        ``ModelNotFoundError`` with the nearest names, ``InvalidRequestError`` for an adapter that lies over no model, and
        ``PathNotAllowedError``.
        """
        if name in over:
            raise InvalidRequestError(
                f"The adapter {name[:200]!r} lies over itself: it was registered under its base's name; register one of"
                " them again under another.",
                param="model",
                code="adapter_without_base",
            )
        model = model_names.find(name, self.models, self.aliases)
        if model is not None:
            return self._registered(name, model, (*over, name))
        if name in self.checkpoints:
            return self._of_checkpoint(name, *self.checkpoints[name], over=(*over, name))
        path = Path(name)
        if path.is_absolute() and _is_directory(path):
            return self._of_directory(name, path, None, None)
        if name.count("/") == 1 and not name.startswith((".", "~", "/", "ft:")):
            return Target(
                model=name, base=name
            )  # a hub id; whether there is such a model is for its engine to find
        known = model_names.known(self.models, self.aliases)
        raise ModelNotFoundError(
            f"There is no model {name[:200]!r}.{nearest(name, known)} `finetune models` lists them.",
            param="model",
        )

    def _of_checkpoint(self, name: str, path: Path, base: str, *, over: tuple[str, ...]) -> Target:
        """What answers for a training's checkpoint in a directory: an adapter over ``base``, or a whole model."""
        if not _is_directory(path):
            raise ModelNotFoundError(
                f"The checkpoint {name[:200]!r} is not kept any more; GET /v1/fine_tuning/jobs/…/checkpoints lists those"
                " that are.",
                param="model",
            )
        return self._of_directory(name, path, base, over)

    def _registered(self, name: str, model: Model, over: tuple[str, ...]) -> Target:
        base = model.base if model.kind == ADAPTER else None
        return self._of_directory(name, Path(model.path), base, over)

    def _of_directory(self, name: str, path: Path, base: str | None, over: tuple[str, ...] | None) -> Target:
        """A directory over ``base``, or over what it says itself. Without ``over``, that is a directory or a hub id."""
        config = path / "adapter_config.json"
        try:
            found = config.stat()
        except (FileNotFoundError, NotADirectoryError):
            return Target(model=name, base=str(path))
        except OSError as error:
            raise _unreadable(name, error.strerror or "it cannot be looked at") from None
        if base is None:
            base = _named_in(name, config)
            self._require_allowed(base, resolved=over is not None)
        return Target(
            model=name,
            base=base if over is None else self.target(base, over=over).base,
            adapter=Adapter(name=f"{path.name}-{_identity(path, found)}", path=str(path)),
        )

    def _require_allowed(self, base: str, *, resolved: bool) -> None:
        """Refuse a path that stands in a file: who may write the file need not be who may name the path."""
        known = {each.path for each in self.models.values()}
        if resolved:
            known |= self.models.keys() | self.aliases.keys()
        try:
            self.paths.check({_BASE: base}, (_BASE,), prefix="", known=known)
        except PermissionDeniedError as refused:
            refused.param = "model"
            raise


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long, or it may not be looked for
        return False


def _named_in(name: str, config: Path) -> str:
    """The model that an adapter's directory says it lies over. Raises ``InvalidRequestError``."""
    try:
        with config.open("rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        told = json.loads(text) if len(text) <= LARGEST_CONFIG else None
    except OSError as error:
        raise _unreadable(name, error.strerror or "it cannot be read") from None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise _unreadable(name, "it is no JSON object")
    base = told.get(_BASE)
    if not isinstance(base, str) or not base:
        raise InvalidRequestError(
            f"The adapter {name[:200]} does not say which model it lies over; name its directory's {_BASE}.",
            param="model",
            code="adapter_without_base",
        )
    return base


def _unreadable(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The adapter_config.json of {name[:200]!r} cannot be used: {why}; correct it, or name another model.",
        param="model",
        code="adapter_unreadable",
    )


def _identity(path: Path, found: os.stat_result) -> str:
    """Tells an adapter's directory from any other, and from what lies there later."""
    return key_of(str(path), {"at": found.st_mtime_ns, "inode": found.st_ino})[:8]


NO_NAMES = Names(models={}, aliases={})
