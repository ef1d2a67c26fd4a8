"""Decoders: rows come and go, and each is what the model would have said of it alone."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.unit.transformers_engine import models  # noqa: E402
from tests.unit.transformers_engine.models import ALL, Batch, generated, log_probs  # noqa: E402

from finetuned_sdk.engines import Adapter, RequestError  # noqa: E402
from finetuned_transformers import packed_decoder as packed  # noqa: E402
from finetuned_transformers.decoder import Prompt  # noqa: E402
from finetuned_transformers.packed_decoder import packed_decoder  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SHORT = [5, 6, 9]
LONG = [5, 6, 7, 8, 10, 11, 12, 13, 14, 200, 201, 17]
SAME = [*LONG[:10], 33, 44]


@pytest.fixture(params=list(ALL))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_rows_that_join_and_leave_say_what_generate_says(name: str) -> None:
    model, batch = models.model(name), Batch(models.decoder(name))
    batch.join({"long": LONG, "short": SHORT})
    batch.step(3)
    batch.join({"same": SAME})
    batch.step(2)
    batch.keep("same", "short")  # the last takes the place of the first
    batch.step(4)
    batch.join({"again": LONG, "third": SHORT[:2]})
    batch.step(5)
    prompts = {"long": LONG, "short": SHORT, "same": SAME, "again": LONG, "third": SHORT[:2]}
    assert len(batch.texts["short"]) == 15
    for row, text in batch.texts.items():
        assert text == generated(model, prompts[row], len(text)), row


def test_an_empty_batch_begins_anew(name: str) -> None:
    model, batch = models.model(name), Batch(models.decoder(name))
    batch.join({"first": LONG})
    batch.step(4)
    batch.keep()
    batch.join({"second": [*LONG, *batch.texts["first"][:4], 9], "third": SHORT})
    batch.step(4)
    assert batch.texts["second"] == generated(model, [*LONG, *batch.texts["first"][:4], 9], 5)
    assert batch.texts["third"] == generated(model, SHORT, 5)


def test_a_row_may_be_longer_than_those_before_it(name: str) -> None:
    model, batch = models.model(name), Batch(models.decoder(name))
    batch.join({"short": SHORT}, limit=20)
    batch.step(3)
    batch.join({"long": LONG * 6}, limit=110)
    batch.step(12)
    assert batch.texts["short"] == generated(model, SHORT, 16)
    assert batch.texts["long"] == generated(model, LONG * 6, 13)


def test_scores_are_those_of_a_forward_and_leave_the_rows_alone(name: str) -> None:
    model, batch = models.model(name), Batch(models.decoder(name))
    batch.join({"row": SHORT})
    batch.step(2)
    with torch.inference_mode():
        found = batch.decoder.score(LONG, None)
    torch.testing.assert_close(found, log_probs(model, LONG), atol=1e-4, rtol=0)
    batch.step(3)
    assert batch.texts["row"] == generated(model, SHORT, 6)


def test_rows_of_other_adapters_are_one_batch(name: str, tmp_path: Path) -> None:
    paths = {each: models.save_adapter(name, tmp_path / each, seed=seed) for seed, each in enumerate("ab")}
    batch = Batch(models.decoder(name))
    for each, path in paths.items():
        batch.decoder.add_adapter(Adapter(each, path))
    batch.join({"plain": LONG})
    batch.join({"a": LONG, "a2": SHORT}, adapter="a")
    batch.step(3)
    batch.join({"b": LONG}, adapter="b")
    batch.step(5)
    said = {"a": models.merged(name, paths["a"]), "b": models.merged(name, paths["b"])}
    assert batch.texts["plain"] == generated(models.model(name), LONG, 9)
    assert batch.texts["a"] == generated(said["a"], LONG, 9)
    assert batch.texts["a2"] == generated(said["a"], SHORT, 9)
    assert batch.texts["b"] == generated(said["b"], LONG, 6)
    assert len({tuple(batch.texts[row][:6]) for row in ("plain", "a", "b")}) == 3


def test_scores_with_an_adapter_are_those_of_the_merged_model(name: str, tmp_path: Path) -> None:
    path = models.save_adapter(name, tmp_path / "a", use_rslora=True)
    decoder = models.decoder(name)
    decoder.add_adapter(Adapter("a", path))
    with torch.inference_mode():
        found = decoder.score(LONG, "a")
    torch.testing.assert_close(found, log_probs(models.merged(name, path), LONG), atol=1e-4, rtol=0)
    decoder.drop_adapter("a")
    with torch.inference_mode():
        plain = decoder.score(LONG, None)
    torch.testing.assert_close(plain, log_probs(models.model(name), LONG), atol=1e-4, rtol=0)


def test_prompts_of_other_adapters_that_join_together_are_each_as_alone(name: str, tmp_path: Path) -> None:
    paths = {each: models.save_adapter(name, tmp_path / each, seed=seed) for seed, each in enumerate("ab")}
    together, alone = models.decoder(name), models.decoder(name)
    for each, path in paths.items():
        together.add_adapter(Adapter(each, path))
        alone.add_adapter(Adapter(each, path))
    prompts = [
        Prompt(LONG, 40),
        Prompt(SHORT, 40, "b"),
        Prompt(SAME, 40, "a"),
        Prompt(LONG, 40, "b"),
        Prompt(SAME, 40),
    ]
    with torch.inference_mode():
        found = together.join(prompts)
        expected = torch.cat([alone.join([prompt]) for prompt in prompts])
        nexts = found.argmax(-1)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.step(nexts), alone.step(nexts), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
    ],
)
@pytest.mark.parametrize("name", ["llama", "llama by its forward"])
def test_an_adapter_that_is_more_than_lora_is_refused(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    path = models.save_adapter(name, tmp_path / "a", **config)
    with pytest.raises(RequestError, match=next(iter(config))) as refused:
        models.decoder(name).add_adapter(Adapter("a", path))
    assert refused.value.code == "adapter_unusable"


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    path = models.save_adapter("gpt2", tmp_path / "a")
    for name in ("llama", "llama by its forward"):
        with pytest.raises(RequestError, match="cannot be used"):
            models.decoder(name).add_adapter(Adapter("a", path))


def test_an_adapter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("llama", "llama by its forward"):
        with pytest.raises(RequestError, match="cannot be read"):
            models.decoder(name).add_adapter(Adapter("a", str(tmp_path / "none")))


def test_a_common_beginning_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder: Any = models.decoder("llama")
    computed: list[list[int]] = []
    prefill = decoder._prefill

    def counting(_: Any, spans: Any) -> Any:
        computed.append([len(each.ids) for each in spans])
        return prefill(spans)

    monkeypatch.setattr(type(decoder), "_prefill", counting)
    with torch.inference_mode():
        decoder.join([Prompt(LONG, 50), Prompt(SAME, 50), Prompt(LONG, 50)])
    assert computed == [[12], [2, 1]]  # in two products
    with torch.inference_mode():
        decoder.keep([])
        decoder.join([Prompt([*LONG, 7], 50)])  # what the last batch has left is of use, too
    assert computed[2:] == [[1]]


@given(
    st.lists(st.integers(0, 2), max_size=40),
    st.lists(st.integers(0, 2), max_size=9),
    st.lists(st.integers(0, 2), max_size=9),
)
def test_what_prompts_have_in_common_is_their_longest_common_beginning(
    begin: list[int], one: list[int], other: list[int]
) -> None:
    pairs = zip(begin + one, begin + other, strict=False)
    alike = takewhile(lambda pair: pair[0] == pair[1], pairs)
    assert packed._same(begin + one, begin + other) == len(list(alike))


def test_what_failed_half_way_is_not_taken_for_a_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    decoder: Any = models.decoder("llama")
    batch = Batch(decoder)
    batch.join({"row": LONG})
    batch.step(2)
    with monkeypatch.context() as patched:
        patched.setattr(type(decoder), "_after_attention", fail)
        with pytest.raises(RuntimeError):
            batch.step()
        with pytest.raises(RuntimeError):
            batch.join({"other": SAME})
    said = [*LONG, *batch.texts["row"]]
    batch.keep()
    batch.join({"again": [*said, 9], "other": SAME})
    batch.step(3)
    model = models.model("llama")
    assert batch.texts["again"] == generated(model, [*said, 9], 4)
    assert batch.texts["other"] == generated(model, SAME, 4)


def test_scoring_leaves_what_ended_rows_have_left() -> None:
    decoder: Any = models.decoder("llama")
    with torch.inference_mode():
        decoder.join([Prompt(SHORT, 50), Prompt(LONG, 50)])
        decoder.keep([])
        decoder.score(SAME, None)
        assert [each.ids for each in decoder._held] == [[], LONG]
        logits = decoder.join([Prompt([*LONG, 7], 50)])
    expected = models.model("llama")(torch.tensor([[*LONG, 7]])).logits[0, -1:]
    torch.testing.assert_close(logits, expected.detach(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", ["llama", "llama by its forward"])
def test_a_refused_adapter_leaves_the_model_as_it_is(name: str, beside: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    decoder = models.decoder(name)
    with torch.inference_mode():
        before = decoder.score(LONG, None)
    good = Adapter("good", models.save_adapter(name, tmp_path / "good"))
    path = models.save_adapter(name, tmp_path / "bad")
    tensors = load_file(tmp_path / "bad" / "adapter_model.safetensors")
    last = max(each for each in tensors if "down_proj.lora_B" in each)
    save_file({**tensors, last: tensors[last][:-3]}, tmp_path / "bad" / "adapter_model.safetensors")
    if beside:
        decoder.add_adapter(good)
    with torch.inference_mode():
        with pytest.raises(RequestError, match="cannot be used"):
            decoder.add_adapter(Adapter("bad", path))
        torch.testing.assert_close(decoder.score(LONG, None), before, atol=0, rtol=0)
        decoder.add_adapter(good)
        found = decoder.score(LONG, "good")
    expected = log_probs(models.merged(name, good.path), LONG)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_row_without_numbers_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = models.save_adapter("llama", tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
    save_file(broken, tmp_path / "a" / "adapter_model.safetensors")
    model, batch = models.model("llama"), Batch(models.decoder("llama"))
    batch.decoder.add_adapter(Adapter("a", path))
    batch.join({"beside": LONG})
    batch.join({"broken": SAME}, adapter="a")
    batch.step(3)
    batch.keep("beside")
    batch.join({"short": SHORT})
    batch.join({"broken again": SAME}, adapter="a")
    batch.step(2)
    batch.keep("beside", "short")
    batch.step(2)
    assert batch.texts["beside"] == generated(model, LONG, 8)
    assert batch.texts["short"] == generated(model, SHORT, 5)


def test_a_cache_that_was_wide_for_a_long_row_is_narrow_again_without_it() -> None:
    def computed(decoder: Any) -> list[Any]:
        with torch.inference_mode():
            logits = [decoder.join([Prompt(SHORT, 10), Prompt(LONG, 20)])]
            logits += [decoder.step(logits[-1].argmax(-1)) for _ in range(3)]
            decoder.keep([])
        return logits

    def wide() -> Any:
        made = packed_decoder(models.model("llama"), length=2000, most_tokens=40_000)
        assert made is not None
        return made

    decoder = wide()
    alone = computed(wide())
    with torch.inference_mode():
        decoder.join([Prompt(SHORT[::-1], 10), Prompt(LONG[::-1], 2000)])  # nothing of them is of use
        decoder.step(torch.tensor([1, 2]))
        decoder.keep([0])
        assert decoder._cache.keys.shape[3] >= 2000  # a row goes on, and is not copied for it
        decoder.keep([])
    for found, expected in zip(computed(decoder), alone, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert decoder._cache.keys.shape[3] == 64


def test_a_cache_that_becomes_narrow_keeps_what_ended_rows_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder: Any = packed_decoder(models.model("llama"), length=2000, most_tokens=40_000)
    ids = LONG * 20
    with torch.inference_mode():
        decoder.join([Prompt(SHORT, 10), Prompt(ids, 2000)])
        decoder.keep([])
        decoder.join([Prompt(SHORT, 10)])
        assert decoder._cache.keys.shape[3] == 256
        prefill, computed = decoder._prefill, []

        def counting(_: Any, spans: Any) -> Any:
            computed.append([len(each.ids) for each in spans])
            return prefill(spans)

        with monkeypatch.context() as patched:
            patched.setattr(type(decoder), "_prefill", counting)
            found = decoder.join([Prompt([*ids, 7], 250)])
        assert computed == [[1]]
        fresh: Any = packed_decoder(models.model("llama"), length=2000, most_tokens=40_000)
        expected = fresh.join([Prompt([*ids, 7], 250)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", [None, "a"])
def test_a_prompt_in_pieces_is_what_it_is_at_once(name: str, adapter: str | None, tmp_path: Path) -> None:
    long = LONG * 3
    paths = {None: None, "a": models.save_adapter(name, tmp_path / "a")}
    model = models.model(name) if adapter is None else models.merged(name, str(paths[adapter]))
    whole, batch = models.decoder(name), Batch(models.decoder(name))
    for each in (whole, batch.decoder):
        each.add_adapter(Adapter("a", str(paths["a"])))
    batch.join({"first": SHORT, "short": SHORT})
    prompt = Prompt(long, 100, adapter)
    there = []
    with torch.inference_mode():
        for kept in (("first", "short"), ("short",), ("short",), ()):
            there.append(batch.decoder.prepare(prompt, 10))
            if batch.names:
                batch.step()
                batch.keep(*kept)
        found = batch.decoder.join([prompt])
        expected = whole.join([prompt])
    assert there == [10, 20, 30, 35]  # all but the last
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    batch.names, batch.texts["long"] = ["long"], [int(found.argmax())]
    batch.step(3)
    batch.join({"other": SHORT})
    batch.step(2)
    assert batch.texts["long"] == generated(model, long, 6)
    assert batch.texts["other"] == generated(models.model(name), SHORT, 3)


def test_what_is_lost_of_a_prompt_is_computed_when_it_joins(name: str) -> None:
    long, batch = LONG * 3, Batch(models.decoder(name))
    with torch.inference_mode():
        batch.decoder.prepare(Prompt(long, 100), 20)
        batch.decoder.score(SAME, None)
        batch.decoder.prepare(Prompt(SAME, 100), 4)
    batch.join({"long": long})
    batch.step(4)
    assert batch.texts["long"] == generated(models.model(name), long, 5)


def test_a_short_row_takes_no_memory_for_a_long_one() -> None:
    decoder: Any = models.decoder("llama")
    with torch.inference_mode():
        decoder.join([Prompt(LONG, 20), Prompt(SHORT, 20)])
        decoder.join([Prompt(SHORT, 100)])
    assert decoder._cache._written[:3] == [len(LONG), len(SHORT), len(SHORT)]
