"""Sampling completions: equal to the model's own generation and probabilities, drawn as asked, and nothing else changed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from finetuned_decoding import llama_decoder, packed_linear  # noqa: E402
from finetuned_decoding.token_choice import NOISE, choose  # noqa: E402
from finetuned_opd import decoding, sampling  # noqa: E402
from finetuned_opd.sampling import Completion, Sampler, Sampling  # noqa: E402
from finetuned_sdk import JobError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

VOCABULARY = 300  # not a multiple of any block
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64} | dict.fromkeys(
    ("bos_token_id", "eos_token_id")
)
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
#: those that have a decoder of their own
FAST: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SHAPE),
    "llama with tied embeddings": ("Llama", SHAPE | {"tie_word_embeddings": True}),
    "llama with heads of their own size": ("Llama", SHAPE | {"head_dim": 12}),
    "llama with biases": ("Llama", SHAPE | {"attention_bias": True, "mlp_bias": True}),
    "llama with yarn": ("Llama", SHAPE | {"rope_parameters": YARN}),
    "mistral": ("Mistral", SHAPE | {"sliding_window": None}),
    "qwen2": ("Qwen2", SHAPE),
    "qwen3": ("Qwen3", SHAPE | {"head_dim": 16}),
}
#: those that are asked through their forward
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral with a window": ("Mistral", SHAPE | {"sliding_window": 4}),
    "gemma2": ("Gemma2", SHAPE | {"head_dim": 8, "sliding_window": 4}),
    "gpt2": ("GPT2", GPT2),
}
PROMPTS = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10, 11, 12, 13, 14], [5, 6, 200]]


def make(family: str, shape: dict[str, Any]) -> Any:
    """A random model with opinions, its biases and norms not zeros and ones."""
    torch.manual_seed(0)
    head = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, head)(getattr(transformers, f"{family}Config")(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4).add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(params=[*FAST, *SLOW])
def model(request: pytest.FixtureRequest) -> Any:
    return make(*(FAST | SLOW)[request.param])


@pytest.fixture(params=["llama", "gpt2"])
def of_each_decoder(request: pytest.FixtureRequest) -> Any:
    return make(*(FAST | SLOW)[request.param])


@pytest.fixture
def llama() -> Any:
    return make(*FAST["llama"])


def with_lora(model: Any, **config: Any) -> Any:
    """The model under an adapter that changes what it says."""
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=0.5, **config)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return adapted.eval()


def sample(model: Any, prompts: list[list[int]] = PROMPTS, *, seed: int = 0, **how: Any) -> list[Completion]:
    asked: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": frozenset()} | how
    return Sampler(model, Sampling(**asked)).sample(prompts, torch.Generator().manual_seed(seed))


def ids(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [each.ids for each in completions]


def forward_log_probs(model: Any, prompt: list[int], completion: tuple[int, ...]) -> Tensor:
    """Those of a completion, from one forward over prompt and completion."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    found: Tensor = logits.float().log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
    return found


def assert_log_probs(model: Any, completions: list[Completion], prompts: list[list[int]] = PROMPTS) -> None:
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = forward_log_probs(model, prompt, completion.ids)
        torch.testing.assert_close(completion.log_probs, expected, atol=1e-4, rtol=0)


def generated(
    model: Any, prompts: list[list[int]], new_tokens: int, stop_ids: set[int]
) -> list[tuple[int, ...]]:
    """What ``generate`` says, likeliest token by likeliest token; what it padded after a stop token is cut."""
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
    seen = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    out = model.generate(
        input_ids=padded,
        attention_mask=seen,
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    found = []
    for row in out[:, longest:].tolist():
        ends = [at + 1 for at, token in enumerate(row) if token in stop_ids]
        found.append(tuple(row[: min(ends, default=len(row))]))
    return found


# What a model says


def test_known_families_get_the_fast_decoder_and_others_the_one_for_all() -> None:
    for family, shape in FAST.values():
        assert isinstance(decoding.decoder_of(make(family, shape), PROMPTS, 1), llama_decoder.LlamaDecoder)
    for family, shape in SLOW.values():
        assert isinstance(decoding.decoder_of(make(family, shape), PROMPTS, 1), decoding.ForwardDecoder)


def test_the_likeliest_tokens_are_those_of_generate_for_prompts_of_all_lengths(model: Any) -> None:
    assert ids(sample(model, temperature=0.0)) == generated(model, PROMPTS, 12, set())


def test_any_stop_token_ends_a_row_and_the_others_go_on_as_generate_does(model: Any) -> None:
    plain = generated(model, PROMPTS, 12, set())
    stop_ids = {plain[0][2], plain[2][5], VOCABULARY - 1}
    expected = generated(model, PROMPTS, 12, stop_ids)
    assert len({len(each) for each in expected}) > 1
    found = sample(model, temperature=0.0, stop_ids=frozenset(stop_ids))
    assert ids(found) == expected
    assert [each.stopped for each in found] == [each[-1] in stop_ids for each in expected]


def test_log_probs_are_those_of_one_forward_also_of_rows_that_outlived_others(model: Any) -> None:
    stop_ids = frozenset(range(0, VOCABULARY, 5))
    prompts = [[*PROMPTS[row % 4], row] for row in range(12)]
    found = sample(model, prompts, stop_ids=stop_ids, max_new_tokens=20)
    assert len({len(each.ids) for each in found}) > 3
    assert_log_probs(model, found, prompts)


@pytest.mark.parametrize("how", [{"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.4}, {"temperature": 0.0}])
def test_log_probs_are_the_models_whatever_was_drawn_by(llama: Any, how: dict[str, Any]) -> None:
    assert_log_probs(llama, sample(llama, **how))


def test_log_probs_can_be_learned_from(llama: Any) -> None:
    (found, *_) = sample(llama)
    weight = torch.ones(len(found.ids), requires_grad=True)
    (weight.exp() * found.log_probs).sum().backward()
    assert weight.grad is not None
    assert found.log_probs.dtype == torch.float32


def test_prompts_without_anything_in_common_and_one_alone_are_as_right(model: Any) -> None:
    apart = [[7], [8, 9, 10], [9, 10]]
    assert ids(sample(model, apart, temperature=0.0)) == generated(model, apart, 12, set())
    assert ids(sample(model, [[7, 8]], temperature=0.0)) == generated(model, [[7, 8]], 12, set())
    same = [[7, 8, 9]] * 3
    assert ids(sample(model, same, temperature=0.0)) == generated(model, same, 12, set())


def test_prompts_that_are_computed_by_portions_are_as_right(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample(llama)
    monkeypatch.setattr(llama_decoder, "_PREFILL_TOKENS", 5)
    assert ids(sample(llama)) == ids(whole)
    assert_log_probs(llama, sample(llama))


def test_no_prompt_gives_no_completion(llama: Any) -> None:
    assert sample(llama, []) == []


# The weights are those of the moment


def test_a_weight_that_was_changed_is_sampled_from(model: Any) -> None:
    sampler = Sampler(model, Sampling(max_new_tokens=12, stop_ids=frozenset()))
    before = sampler.sample(PROMPTS, torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        found = sampler.sample(PROMPTS, torch.Generator().manual_seed(0))
        assert_log_probs(model, found)
    assert ids(found) != ids(before)


@pytest.mark.parametrize(
    "config",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"lora_bias": True}],
    ids=["lora", "rslora", "dora", "saved head", "bias"],
)
def test_an_adapter_is_sampled_from_and_its_weights_stay_apart(config: dict[str, Any]) -> None:
    base = make(*FAST["llama with biases"])
    plain = ids(sample(base, temperature=0.0))
    adapted = with_lora(base, **config)
    weights = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    found = sample(adapted, temperature=0.0)
    assert ids(found) == generated(adapted, PROMPTS, 12, set())
    assert ids(found) != plain
    assert_log_probs(adapted, sample(adapted))
    assert all(torch.equal(parameter, weights[name]) for name, parameter in adapted.named_parameters())


def test_an_adapter_that_is_switched_off_is_not_sampled_from(llama: Any) -> None:
    plain = ids(sample(llama))
    adapted = with_lora(llama)
    with adapted.disable_adapter():
        assert ids(sample(adapted)) == plain
    assert ids(sample(adapted)) != plain


def test_lora_gets_the_fast_decoder_and_what_it_cannot_merge_the_one_for_all(llama: Any) -> None:
    assert isinstance(decoding.decoder_of(with_lora(llama), PROMPTS, 1), llama_decoder.LlamaDecoder)
    dora = with_lora(make(*FAST["llama"]), use_dora=True)
    assert isinstance(decoding.decoder_of(dora, PROMPTS, 1), decoding.ForwardDecoder)


def test_half_precision_and_mixed_precision_are_left_to_the_models_own_forward(llama: Any) -> None:
    llama._original_forward = llama.forward  # as accelerate leaves it
    assert isinstance(decoding.decoder_of(llama, PROMPTS, 1), decoding.ForwardDecoder)
    del llama._original_forward
    found = sample(llama.to(torch.bfloat16))
    for prompt, completion in zip(PROMPTS, found, strict=True):
        expected = forward_log_probs(llama, prompt, completion.ids)
        torch.testing.assert_close(completion.log_probs, expected, atol=0.2, rtol=0)


def test_a_layer_with_a_hook_is_not_passed_by(llama: Any) -> None:
    calls = []
    llama.model.layers[1].mlp.register_forward_hook(lambda *_: calls.append(1))
    sample(llama)
    assert calls


def test_a_torch_without_the_packing_operators_samples_the_same(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = ids(sample(llama))
    monkeypatch.setattr(packed_linear, "_can_pack", lambda: False)
    assert ids(sample(llama)) == packed
    assert_log_probs(llama, sample(llama))


# How tokens are drawn


def softmax(logits: Tensor) -> Tensor:
    return logits.double().softmax(-1)


def expected_probs(logits: Tensor, how: dict[str, Any]) -> Tensor:
    """By transformers' own processors, in the order in which it applies them."""
    steps = transformers.LogitsProcessorList()
    if how.get("temperature", 1.0) != 1.0:
        steps.append(transformers.TemperatureLogitsWarper(how["temperature"]))
    if how.get("top_k"):
        steps.append(transformers.TopKLogitsWarper(how["top_k"]))
    if how.get("top_p", 1.0) < 1:
        steps.append(transformers.TopPLogitsWarper(how["top_p"]))
    return softmax(steps(torch.zeros(1, 0, dtype=torch.long), logits[None]))[0]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_p": 0.8},
        {"top_p": 0.3, "temperature": 1.5},
        {"top_k": 5},
        {"top_k": 1000},
        {"top_k": 20, "top_p": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("vocabulary", [40, 700])
def test_tokens_are_as_frequent_as_they_are_likely(how: dict[str, Any], vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(vocabulary, generator=generator)
    draws = 20_000
    noise = torch.rand(draws, NOISE, generator=generator, dtype=torch.float64)
    asked = Sampling(max_new_tokens=1, stop_ids=frozenset(), **how)
    found, _ = choose(logits.expand(draws, -1), noise, asked)
    counts = found.bincount(minlength=vocabulary).double()
    expected = expected_probs(logits, how)
    assert (counts[expected == 0] == 0).all()
    likely = expected * draws >= 5  # the rule of thumb for a chi-square
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]]) * draws
    wanted, observed = wanted[wanted > 0], observed[wanted > 0]
    freedom = len(wanted) - 1
    chi_square = ((observed - wanted) ** 2 / wanted).sum().item()
    # 5 standard deviations of its normal approximation; the seed is fixed, so this is decided once.
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_a_token_without_weight_is_never_drawn_at_the_edges_of_the_noise() -> None:
    edges = torch.tensor([0.0, 0.5, torch.nextafter(torch.tensor(1.0).double(), torch.tensor(0.0).double())])
    for vocabulary in (4, 256, 600):
        logits = torch.full((3, vocabulary), -torch.inf)
        logits[:, 1:3] = torch.tensor([0.3, -0.2])
        noise = edges.double()[:, None].expand(-1, NOISE)
        found, _ = choose(logits, noise, Sampling(max_new_tokens=1, stop_ids=frozenset()))
        assert set(found.tolist()) == {1, 2}


def test_the_nucleus_keeps_at_least_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(500, -1)
    noise = torch.rand(500, NOISE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, _ = choose(logits, noise, Sampling(max_new_tokens=1, stop_ids=frozenset(), top_p=0.01))
    assert set(found.tolist()) == {1}


def test_the_model_is_sampled_as_often_as_it_says(llama: Any) -> None:
    draws = 4000
    found = sample(llama, [[5, 6, 7]] * draws, max_new_tokens=1)
    counts = Counter(each.ids[0] for each in found)
    with torch.no_grad():
        probs = softmax(llama(torch.tensor([[5, 6, 7]])).logits[0, -1])
    for token, probability in enumerate(probs.tolist()):
        spread = (draws * probability * (1 - probability)) ** 0.5
        assert abs(counts[token] - draws * probability) <= 5 * spread + 1


# Where randomness comes from


def test_only_the_generator_is_drawn_from_and_its_state_decides(of_each_decoder: Any) -> None:
    before = torch.get_rng_state()
    first, second, other = (
        sample(of_each_decoder, seed=1),
        sample(of_each_decoder, seed=1),
        sample(of_each_decoder, seed=2),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert ids(first) == ids(second) != ids(other)
    assert all(torch.equal(a.log_probs, b.log_probs) for a, b in zip(first, second, strict=True))


def test_a_row_becomes_what_it_becomes_whenever_others_end(of_each_decoder: Any) -> None:
    prompts = [[*PROMPTS[row % 4], row] for row in range(8)]
    free = sample(of_each_decoder, prompts, max_new_tokens=16)
    ended = sample(
        of_each_decoder, prompts, max_new_tokens=16, stop_ids=frozenset({free[1].ids[4], free[6].ids[2]})
    )
    assert len({len(each.ids) for each in ended}) > 1
    for whole, part in zip(free, ended, strict=True):
        assert part.ids == whole.ids[: len(part.ids)]


def test_greedy_sampling_draws_nothing(llama: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    Sampler(llama, Sampling(max_new_tokens=2, stop_ids=frozenset(), temperature=0.0)).sample(
        PROMPTS, generator
    )
    assert torch.equal(generator.get_state(), before)


# What is left as it was


def test_modes_gradients_and_settings_are_left_as_they_were(llama: Any) -> None:
    adapted = with_lora(llama)
    adapted.train()
    adapted.base_model.model.model.layers[0].eval()
    adapted.activation_checkpointing_enable()
    adapted.config.use_cache = False

    def state() -> list[Any]:
        modules = [(name, each.training) for name, each in adapted.named_modules()]
        checkpointing = [getattr(each, "gradient_checkpointing", None) for each in adapted.modules()]
        parameters = [(name, each.requires_grad, each.grad) for name, each in adapted.named_parameters()]
        hooks = [len(each._forward_hooks) for each in adapted.modules()]
        return [modules, checkpointing, parameters, hooks, adapted.config.to_dict(), adapted.active_adapters]

    before = state()
    sample(adapted)
    assert state() == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_in_training_is_sampled_without_dropout_and_trains_on(
    of_each_decoder: Any, checkpointing: bool
) -> None:
    expected = ids(sample(of_each_decoder))
    of_each_decoder.train()
    if checkpointing:
        of_each_decoder.activation_checkpointing_enable()
    assert ids(sample(of_each_decoder)) == expected
    assert of_each_decoder.training
    of_each_decoder(torch.tensor([PROMPTS[0]])).logits.sum().backward()
    assert any(each.grad is not None for each in of_each_decoder.parameters())


def test_modes_are_put_back_when_sampling_fails(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    llama.train()
    monkeypatch.setattr(sampling, "decoder_of", fail)
    with pytest.raises(RuntimeError):
        sample(llama)
    assert all(each.training for each in llama.modules())


# What cannot be sampled


def test_a_completion_ends_where_the_models_positions_do(of_each_decoder: Any) -> None:
    prompts = [list(range(1, 63)), [1, 2, 3]]
    found = sample(of_each_decoder, prompts, max_new_tokens=5)
    assert [len(each.ids) for each in found] == [2, 5]
    assert not found[0].stopped
    assert_log_probs(of_each_decoder, found, prompts)


@pytest.mark.parametrize("prompt", [[], [1] * 64, [1] * 70])
def test_a_prompt_that_is_empty_or_leaves_no_position_is_refused(llama: Any, prompt: list[int]) -> None:
    with pytest.raises(ValueError, match="from 1 to 63 can be completed"):
        sample(llama, [[1, 2], prompt])


def test_probabilities_that_are_no_numbers_are_an_error_with_a_remedy(of_each_decoder: Any) -> None:
    with torch.no_grad():
        of_each_decoder.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(JobError, match="no longer numbers; lower learning_rate") as caught:
        sample(of_each_decoder)
    assert caught.value.code == "loss_diverged"
