"""What answers for a name, which engine does, and how it is set up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finetuned.access.path_policy import ANYWHERE
from finetuned.domain.errors import InvalidRequestError, ModelNotFoundError, PermissionDeniedError
from finetuned.domain.registers import Alias, Model
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.target import Names
from finetuned_sdk import EngineKind, EngineNeed, Registry
from finetuned_sdk.fake_engine import FAKE_ENGINE, FakeEngineParams

CHAT = "/v1/chat/completions"


def model(name: str, path: Path, **changes: Any) -> Model:
    given: dict[str, Any] = {"kind": "model", "base": None, "job": None, "lineage": {}, "created_at": 1}
    return Model(name=name, path=str(path), **{**given, **changes})


def adapter(directory: Path, base: str | None) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return directory


def names(*models: Model, **aliases: str) -> Names:
    set_up = {
        name: Alias(alias=name, model=each, history=(), set_at=1, set_by="test")
        for name, each in aliases.items()
    }
    return Names(models={each.name: each for each in models}, aliases=set_up)


def registry(*kinds: EngineKind) -> Registry:
    found = Registry()
    for each in kinds:
        found.job_kind(each)
    return found


def kind(name: str, *endpoints: str) -> EngineKind:
    return EngineKind(
        name=name, summary="Answers.", params=FakeEngineParams, entry="any:run", endpoints=endpoints
    )


def test_a_registered_model_is_its_directory(tmp_path: Path) -> None:
    target = names(model("small", tmp_path)).target("small")
    assert (target.model, target.base, target.adapter) == ("small", str(tmp_path), None)


def test_an_adapter_lies_over_the_model_that_it_was_trained_on(tmp_path: Path) -> None:
    base = model("base", tmp_path)
    over = model("tuned", adapter(tmp_path / "over", "ignored"), kind="adapter", base="base")
    target = names(base, over).target("tuned")
    assert target.base == str(tmp_path)
    assert target.adapter is not None
    assert target.adapter.path == str(tmp_path / "over")


def test_an_adapter_over_an_adapters_base_needs_one_engine(tmp_path: Path) -> None:
    base = model("base", tmp_path)
    known = names(
        base,
        *(
            model(each, adapter(tmp_path / each, None), kind="adapter", base="base")
            for each in ("one", "two")
        ),
    )
    wanted = [
        known.target(each).wanted(FAKE_ENGINE, {"model": known.target(each).base}) for each in ("one", "two")
    ]
    assert wanted[0].key == wanted[1].key
    one, two = (known.target(each).adapter for each in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.name != two.name


def test_what_lies_in_an_adapters_directory_later_has_another_name(tmp_path: Path) -> None:
    directory = adapter(tmp_path / "over", "some/base")
    before = names().target(str(directory)).adapter
    os.utime(directory / "adapter_config.json", ns=(1, 1))
    after = names().target(str(directory)).adapter
    assert before is not None
    assert after is not None
    assert before.name != after.name


def test_an_adapter_that_names_no_model_beneath_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        names().target(str(adapter(tmp_path / "over", None)))
    assert refused.value.stable_code == "adapter_without_base"


def test_an_alias_and_an_ft_name_stand_for_a_model(tmp_path: Path) -> None:
    made = model("bot", tmp_path, job="job-x7k2m9qd4t", base="/models/small")
    known = names(made, **{"bot@production": "bot"})
    assert known.target("bot@production").base == str(tmp_path)
    assert known.target("ft:small:finetuned:bot:x7k2m9qd4t").base == str(tmp_path)


def test_a_directory_and_a_hub_id_are_themselves(tmp_path: Path) -> None:
    assert names().target(str(tmp_path)).base == str(tmp_path)
    assert names().target("org/model").base == "org/model"


@pytest.mark.parametrize("name", ["smal", "/no/such/directory", "ft:small:finetuned:bot", "./here", "a/b/c"])
def test_a_name_that_stands_for_nothing_is_told_with_the_nearest(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as refused:
        names(model("small", tmp_path)).target(name)
    assert refused.value.param == "model"
    if name == "smal":
        assert "'small'" in refused.value.message


def test_the_default_engine_answers_where_nobody_names_one() -> None:
    defaults = EngineDefaults(engine="fake-engine")
    assert defaults.kind(None, registry(FAKE_ENGINE)) is FAKE_ENGINE


def test_an_engine_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequestError, match="fake-engine") as refused:
        EngineDefaults().kind("fake", registry(FAKE_ENGINE))
    assert refused.value.stable_code == "unknown_engine"
    with pytest.raises(InvalidRequestError, match="none"):
        EngineDefaults().kind(None, registry())


def test_an_endpoint_is_asked_of_an_engine_that_answers_it() -> None:
    found = registry(kind("chats", CHAT), kind("embeds", "/v1/embeddings"))
    defaults = EngineDefaults(engine="chats")
    assert defaults.kind(None, found, endpoint=CHAT).name == "chats"
    assert defaults.kind(None, found, endpoint="/v1/embeddings").name == "embeds"
    with pytest.raises(InvalidRequestError, match="embeds can") as refused:
        defaults.kind("chats", found, endpoint="/v1/embeddings")
    assert refused.value.stable_code == "unsupported_endpoint"
    with pytest.raises(InvalidRequestError, match="no other that is installed does"):
        defaults.kind(None, found, endpoint="/v1/images")


def test_what_a_request_says_of_an_engine_comes_before_what_the_operator_says() -> None:
    defaults = EngineDefaults(options={"fake-engine": {"at_once": 2, "token_seconds": 1.0}})
    assert defaults.params(FAKE_ENGINE, "base", {"at_once": 3}) == {
        "at_once": 3,
        "token_seconds": 1.0,
        "model": "base",
    }


def test_an_option_that_the_engine_does_not_know_is_named() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        EngineDefaults().params(FAKE_ENGINE, "base", {"at_onse": 3})
    assert (refused.value.stable_code, refused.value.param) == ("unknown_parameter", "engine.at_onse")


def test_what_a_job_asks_is_recorded_as_the_engine_that_it_needs(tmp_path: Path) -> None:
    known = names(model("small", tmp_path))
    need = EngineNeed(model="small", engine="fake-engine", options={"at_once": 3})
    found = EngineDefaults().resolved(need, registry(FAKE_ENGINE), known)
    assert (found["kind"], found["model"], found["adapter"]) == ("fake-engine", "small", None)
    assert found["params"] == {"at_once": 3, "model": str(tmp_path)}


@pytest.mark.parametrize("base", ["/etc", "../secret", "~/x", "https://example.org/m"])
def test_a_path_that_an_adapter_names_itself_is_for_who_may_name_it(base: str, tmp_path: Path) -> None:
    directory = str(adapter(tmp_path / "over", base))
    with pytest.raises(PermissionDeniedError) as refused:
        names().target(directory)
    assert refused.value.param == "model"
    assert Names(models={}, aliases={}, paths=ANYWHERE).target(directory).base == base


def test_an_adapter_may_name_a_registered_models_directory(tmp_path: Path) -> None:
    directory = str(adapter(tmp_path / "over", str(tmp_path)))
    assert names(model("base", tmp_path)).target(directory).base == str(tmp_path)


@pytest.mark.parametrize("config", [b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (2 << 20)])
def test_an_adapters_configuration_that_is_no_object_is_told(config: bytes, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(config)
    with pytest.raises(InvalidRequestError) as refused:
        names().target(str(tmp_path))
    assert refused.value.stable_code == "adapter_unreadable"


def test_an_adapters_configuration_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").mkdir()
    with pytest.raises(InvalidRequestError) as refused:
        names().target(str(tmp_path))
    assert refused.value.stable_code == "adapter_unreadable"


def test_a_directory_that_cannot_be_looked_for_is_no_model() -> None:
    with pytest.raises(ModelNotFoundError):
        names().target("/" + "x" * 300)


def test_an_adapter_that_lies_over_itself_is_refused(tmp_path: Path) -> None:
    same = model("same", adapter(tmp_path / "over", None), kind="adapter", base="same@production")
    with pytest.raises(InvalidRequestError, match="over itself") as refused:
        names(same, **{"same@production": "same"}).target("same")
    assert refused.value.stable_code == "adapter_without_base"
