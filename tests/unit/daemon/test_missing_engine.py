"""An engine whose modules are not there is refused before anything is started."""

from __future__ import annotations

import pytest

from finetuned.domain.errors import InvalidRequestError
from finetuned.engines.defaults import EngineDefaults
from finetuned_sdk import EngineEnvironment, EngineKind, Registry
from finetuned_sdk.fake_engine import FakeEngineParams


def registry(environment: EngineEnvironment | None) -> Registry:
    kinds = Registry()
    kinds.job_kind(
        EngineKind(
            name="quick",
            summary="Is quick.",
            params=FakeEngineParams,
            entry="quick.worker:run",
            requires=("a_module_that_is_not_there",),
            environment=environment,
        )
    )
    return kinds


@pytest.mark.parametrize(
    ("environment", "remedy"),
    [
        (EngineEnvironment(gpu=("quick",), cpu=("quick",)), "finetune engines install quick"),
        (None, "install finetuned[train]"),
    ],
)
def test_it_is_refused_with_what_to_install(environment: EngineEnvironment | None, remedy: str) -> None:
    with pytest.raises(InvalidRequestError, match="a_module_that_is_not_there") as refused:
        EngineDefaults(engine="quick").kind(None, registry(environment))
    assert refused.value.stable_code == "engine_not_installed"
    assert remedy in refused.value.message


def test_one_with_an_interpreter_of_its_own_is_not_looked_for_here() -> None:
    defaults = EngineDefaults(engine="quick", elsewhere=frozenset({"quick"}))
    assert defaults.kind(None, registry(None)).name == "quick"
