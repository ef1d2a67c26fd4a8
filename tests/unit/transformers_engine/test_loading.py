"""What the embedded engine declares, loads and refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.acceptance.sft.tiny import make_tokenizer
from tests.unit.transformers_engine.models import model
from tests.unit.transformers_engine.tiny_engine import opinionated

from finetuned_sdk import Device, EngineKind, Host, JobError, RefusedError, Registry
from finetuned_sdk.testing import RecordingContext
from finetuned_transformers import plugin
from finetuned_transformers.forward_decoder import ForwardDecoder
from finetuned_transformers.loading import load, loaded
from finetuned_transformers.packed_decoder import PackedDecoder
from finetuned_transformers.params import TransformersParams

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def made(one: Any, **params: Any) -> Any:
    return loaded(one, make_tokenizer(), TransformersParams(model="tiny", **params))


def test_it_is_an_engine_that_answers_chat_and_completions() -> None:
    registry = Registry()
    plugin.finetuned_register(registry)
    kind = registry.engines["transformers"]
    assert isinstance(kind, EngineKind)
    assert kind.endpoints == ("/v1/chat/completions", "/v1/completions")
    assert kind.resources is not None
    assert kind.resources(TransformersParams(model="tiny"), Host()).devices == 1


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    params = TransformersParams(model=str(tmp_path), dtype="float16")
    with pytest.raises(RefusedError) as refused:
        plugin.check(params, Host())
    assert refused.value.param == "dtype"
    gpu = Device(id="gpu:1", kind="gpu", name="one", memory_bytes=1 << 34)
    plugin.check(params, Host(devices=(gpu,)))


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        plugin.check(TransformersParams(model="/no/such/model"), Host())
    assert refused.value.code == "model_not_found"


def test_a_model_is_decoded_by_what_can() -> None:
    assert isinstance(made(opinionated()).decoder, PackedDecoder)
    assert isinstance(made(opinionated(), packed=False).decoder, ForwardDecoder)
    assert isinstance(made(model("gpt2")).decoder, ForwardDecoder)


def test_the_context_is_bounded_by_the_model_by_what_is_asked_and_by_the_cache() -> None:
    assert made(opinionated()).length == 512
    assert made(opinionated(), max_context=100).length == 100
    assert made(opinionated(), cache_tokens=50).length == 50
    assert made(opinionated(), at_once=2).most_tokens == 2 * 512


def test_a_text_ends_where_the_model_or_its_tokenizer_says() -> None:
    one = opinionated()
    one.generation_config.eos_token_id = [7, 8]
    assert made(one).stop_ids == {7, 8, make_tokenizer().eos_token_id}


def test_a_model_with_a_state_of_its_own_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(JobError) as refused:
        made(MambaForCausalLM(config))
    assert refused.value.code == "architecture_unsupported"


def context(tmp_path: Path, params: TransformersParams) -> RecordingContext:
    return RecordingContext(tmp_path / "state", params=params.model_dump(), models={"model": params.model})


def test_a_directory_without_a_model_says_so(tmp_path: Path) -> None:
    params = TransformersParams(model=str(tmp_path))
    with pytest.raises(JobError, match="cannot be loaded") as refused:
        load(context(tmp_path, params), params)
    assert refused.value.code == "model_unloadable"


def test_a_model_whose_weights_are_cut_short_is_no_crash_that_is_tried_again(tmp_path: Path) -> None:
    opinionated().save_pretrained(tmp_path / "model")
    os.truncate(tmp_path / "model" / "model.safetensors", 2_000)
    params = TransformersParams(model=str(tmp_path / "model"))
    with pytest.raises(JobError, match="cannot be loaded") as refused:
        load(context(tmp_path, params), params)
    assert refused.value.code == "model_unloadable"


def test_a_model_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    opinionated().save_pretrained(tmp_path / "model")
    params = TransformersParams(model=str(tmp_path / "model"))
    with pytest.raises(JobError, match="cannot be loaded") as refused:
        load(context(tmp_path, params), params)
    assert refused.value.code == "tokenizer_unloadable"


def test_code_of_a_repository_is_not_run_unless_the_operator_allows_it(tmp_path: Path) -> None:
    params = TransformersParams(model="tiny", trust_remote_code=True)
    with pytest.raises(JobError) as refused:
        load(context(tmp_path, params), params)
    assert refused.value.code == "remote_code_not_allowed"
