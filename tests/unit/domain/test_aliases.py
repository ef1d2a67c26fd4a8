"""Aliases: promoted, rolled back, and never left standing for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.worlds import Scene

from finetuned.domain import alias_decisions, decisions, facts
from finetuned.domain.errors import (
    FinetunedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    Rejected,
)
from finetuned.domain.streams import event

ALIAS = "bot@production"


def scene(*models: str) -> Scene:
    made = Scene()
    for name in models:
        fact = facts.ModelRegistered(name=name, path=f"/m/{name}", kind="model", base=None, job=None)
        made.fold([event(f"model/{name}", fact, "test")])
    return made


def promote(made: Scene, *models: str, alias: str = ALIAS) -> None:
    for model in models:
        made.fold(alias_decisions.promote(made.world, alias, model, actor="a"))


def roll_back(made: Scene) -> str:
    made.fold(alias_decisions.roll_back(made.world, ALIAS, actor="a"))
    return made.world.aliases[ALIAS].model


def test_an_alias_stands_for_what_was_promoted_last() -> None:
    made = scene("one", "two")
    promote(made, "one", "two")
    assert made.world.aliases[ALIAS].model == "two"
    assert made.world.aliases[ALIAS].history == ("one",)


def test_promoting_what_it_stands_for_changes_nothing() -> None:
    made = scene("one")
    promote(made, "one")
    assert alias_decisions.promote(made.world, ALIAS, "one", actor="a") == []


def test_a_rollback_goes_back_one_at_a_time() -> None:
    made = scene("one", "two", "three")
    promote(made, "one", "two", "three")
    assert roll_back(made) == "two"
    assert roll_back(made) == "one"
    with pytest.raises(Rejected) as refused:
        roll_back(made)
    assert refused.value.stable_code == "no_earlier_model"


def test_a_rollback_skips_what_is_not_registered_any_more() -> None:
    made = scene("one", "two", "three")
    promote(made, "one", "two", "three")
    made.fold(decisions.delete_model(made.world, "two", actor="a"))
    assert roll_back(made) == "one"
    assert made.world.aliases[ALIAS].history == ()


def test_what_another_alias_stands_for_can_be_promoted() -> None:
    made = scene("one")
    promote(made, "one", alias="bot@staging")
    promote(made, "bot@staging")
    assert made.world.aliases[ALIAS].model == "one"


def test_a_model_that_an_alias_names_is_not_removed() -> None:
    made = scene("one", "two")
    promote(made, "one")
    with pytest.raises(Rejected, match=ALIAS) as refused:
        decisions.delete_model(made.world, "one", actor="a")
    assert refused.value.stable_code == "model_aliased"
    made.fold(alias_decisions.delete(made.world, ALIAS, actor="a"))
    made.fold(decisions.delete_model(made.world, "one", actor="a"))
    assert set(made.world.models) == {"two"}


@pytest.mark.parametrize("name", ["bot", "@production", "bot@", "a/b@c", "bot@a@b", "-x@y", "b t@p", ""])
def test_a_name_that_no_alias_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        alias_decisions.promote(scene("one").world, name, "one", actor="a")


def test_an_alias_may_not_hide_a_model() -> None:
    with pytest.raises(Rejected) as refused:
        promote(scene("one", ALIAS), "one")
    assert refused.value.stable_code == "alias_is_a_model"


def test_what_is_not_there_is_refused_with_the_nearest_name() -> None:
    made = scene("orders")
    with pytest.raises(ModelNotFoundError, match="'orders'"):
        promote(made, "order")
    promote(made, "orders")
    with pytest.raises(NotFoundError, match=ALIAS):
        alias_decisions.roll_back(made.world, "bot@productoin", actor="a")
    with pytest.raises(NotFoundError):
        alias_decisions.delete(made.world, "none@such", actor="a")
    with pytest.raises(NotFoundError):  # an alias is no model
        decisions.delete_model(made.world, ALIAS, actor="a")


def test_a_model_is_removed_by_its_ft_name_too() -> None:
    made = Scene()
    fact = facts.ModelRegistered(name="bot", path="/m", kind="model", base="/b/small", job="job-x7k2m9qd4t")
    made.fold([event("model/bot", fact, "test")])
    made.fold(decisions.delete_model(made.world, "ft:small:finetuned:bot:x7k2m9qd4t", actor="a"))
    assert not made.world.models


MOVES = st.sampled_from(
    ["promote a", "promote b", "promote c", "rollback", "delete a", "delete b", "delete c"]
)


@given(st.lists(MOVES, max_size=40))
def test_an_alias_always_stands_for_a_registered_model(moves: list[str]) -> None:
    made = scene("a", "b", "c")
    for move in moves:
        what, _, model = move.partition(" ")
        try:
            match what:
                case "promote":
                    promote(made, model)
                case "rollback":
                    before = made.world.aliases[ALIAS].model if ALIAS in made.world.aliases else None
                    assert roll_back(made) != before
                case _:
                    made.fold(decisions.delete_model(made.world, model, actor="a"))
        except FinetunedError:
            continue
        alias = made.world.aliases.get(ALIAS)
        assert alias is None or alias.model in made.world.models
