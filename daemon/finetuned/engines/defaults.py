"""Which engine answers, and how it is set up, where nobody says."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from finetuned.domain.errors import InvalidRequestError
from finetuned.engines.target import Names
from finetuned.refusals import invalid
from finetuned.spelling import nearest
from finetuned_sdk import EngineKind, EngineNeed, Registry

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDefaults:
    """``engine`` is the kind that answers by default, ``options`` are parameters of kinds by their names.

    ``elsewhere`` names the kinds that have an environment of their own.
    """

    engine: str = "transformers"
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()

    def kind(self, name: str | None, registry: Registry, *, endpoint: str | None = None) -> EngineKind:
        """The kind of that name, or the default; with an ``endpoint`` one that answers it.

        Raises ``InvalidRequestError`` if there is none.
        """
        kinds = registry.engines
        wanted = name or self.engine
        if endpoint is not None:
            wanted = _answering(endpoint, wanted, kinds, named=name is not None)
        if wanted not in kinds:
            raise InvalidRequestError(
                f"There is no engine {wanted!r}.{nearest(wanted, kinds)} The engines are"
                f" {', '.join(sorted(kinds)) or 'none: no plugin that declares one is loaded'}.",
                param="engine",
                code="unknown_engine",
            )
        if wanted not in self.elsewhere:
            _require_installed(kinds[wanted])
        return kinds[wanted]

    def params(self, kind: EngineKind, base: str, given: Mapping[str, Json]) -> dict[str, Json]:
        """The engine's parameters: what is given before the operator's. Raises ``InvalidRequestError``."""
        params = {**self.options.get(kind.name, {}), **given, "model": base}
        try:
            kind.params.model_validate(params)
        except ValidationError as error:
            raise invalid(error, kind.params.model_fields, prefix="engine.") from None
        return params

    def resolved(self, need: EngineNeed, registry: Registry, names: Names) -> dict[str, Json]:
        """What ``job.submitted`` records of the engine that a job asks. Looks into directories.

        Raises ``InvalidRequestError`` or ``NotFoundError``.
        """
        kind = self.kind(need.engine, registry, endpoint=need.endpoint)
        target = names.target(need.model)
        wanted = target.wanted(kind, self.params(kind, target.base, need.options))
        adapter = target.adapter
        return {
            "kind": wanted.kind,
            "params": dict(wanted.params),
            "key": wanted.key,
            "model": target.model,
            "adapter": None if adapter is None else {"name": adapter.name, "path": adapter.path},
        }


def _answering(endpoint: str, wanted: str, kinds: Mapping[str, EngineKind], *, named: bool) -> str:
    """The wanted kind if it answers an endpoint, else, unless it was named, the first by name that does."""
    able = sorted(name for name, kind in kinds.items() if endpoint in kind.endpoints)
    if wanted in able or wanted not in kinds:
        return wanted
    if able and not named:
        return able[0]
    others = f"; {', '.join(able)} can" if able else ", and no other that is installed does"
    raise InvalidRequestError(
        f"The engine {wanted!r} does not answer {endpoint}{others}.", code="unsupported_endpoint"
    )


def _require_installed(kind: EngineKind) -> None:
    missing = [module for module in kind.requires if importlib.util.find_spec(module) is None]
    if not missing:
        return
    remedy = (
        f"make its environment with `finetune engines install {kind.name}`"
        if kind.environment is not None
        else "install finetuned[train] into the daemon's environment"
    )
    raise InvalidRequestError(
        f"The engine {kind.name} is not installed: {', '.join(missing)} cannot be imported; {remedy}.",
        param="engine",
        code="engine_not_installed",
    )
