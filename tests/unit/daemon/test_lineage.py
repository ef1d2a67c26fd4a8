"""Which models a model was made from, and which were made from it."""

from __future__ import annotations

from typing import Any

from finetuned.domain.lineage import bases, derived
from finetuned.domain.registers import Model


def model(name: str, base: str | None = None, **lineage: Any) -> Model:
    return Model(
        name=name, path=f"/models/{name}", kind="full", base=base, job=None, lineage=lineage, created_at=0
    )


def known(*models: Model) -> dict[str, Model]:
    return {each.name: each for each in models}


def test_bases_are_followed_to_what_is_not_registered() -> None:
    models = known(model("a", "hub/llama"), model("b", "a"), model("c", "b"))
    assert [(each.name, each.model is not None) for each in bases(models["c"], models)] == [
        ("b", True),
        ("a", True),
        ("hub/llama", False),
    ]


def test_a_base_that_is_named_by_its_path_is_found() -> None:
    models = known(model("a"), model("b", "/models/a"))
    assert [each.name for each in bases(models["b"], models)] == ["a"]
    assert [each.model.name for each in derived(models["a"], models)] == ["b"]


def test_the_adapter_that_training_went_on_from_is_one_of_them() -> None:
    models = known(model("first", "llama"), model("second", "llama", adapter="first"))
    assert [each.name for each in bases(models["second"], models)] == ["llama", "first"]
    assert [each.model.name for each in derived(models["first"], models)] == ["second"]


def test_what_was_made_from_it_is_followed_too() -> None:
    models = known(model("a"), model("b", "a"), model("c", "b"), model("d", "a"), model("other"))
    assert [(each.model.name, each.base) for each in derived(models["a"], models)] == [
        ("b", "a"),
        ("d", "a"),
        ("c", "b"),
    ]


def test_a_name_that_was_registered_over_its_own_base_is_no_endless_chain() -> None:
    models = known(model("a", "b"), model("b", "a"), model("self", "self"))
    assert [each.name for each in bases(models["a"], models)] == ["b"]
    assert [each.model.name for each in derived(models["a"], models)] == ["b"]
    assert bases(models["self"], models) == []
    assert derived(models["self"], models) == []
