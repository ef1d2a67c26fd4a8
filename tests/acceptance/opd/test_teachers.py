"""All teachers that are the same model say the same of the same rows, however they are asked."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.tiny import make_tokenizer, save_model
from tests.scoring_server import ScoringServer
from tests.tiny_llama import tiny_llama

torch = pytest.importorskip("torch")

from finetuned_opd import scored_rows  # noqa: E402
from finetuned_opd.endpoint_teacher import EndpointTeacher  # noqa: E402
from finetuned_opd.errors import UnfitTeacherError  # noqa: E402
from finetuned_opd.head import head_of  # noqa: E402
from finetuned_opd.local_teacher import LocalTeacher, SelfTeacher, batches, load  # noqa: E402
from finetuned_opd.precomputed_teacher import PrecomputedTeacher  # noqa: E402
from finetuned_opd.score_cache import CachedTeacher, ScoreCache  # noqa: E402
from finetuned_opd.scores import Row, Scores, Teacher, Wanted  # noqa: E402
from finetuned_sdk import JobError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TOP_K = 4
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def rows() -> list[Row]:
    """Rows of many lengths, the shortest and repeated ones among them."""
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 300) for _ in range(count))

    mixed = [Row(ids(draw.randrange(1, 40)), ids(draw.randrange(1, 60))) for _ in range(12)]
    return [*mixed, Row((5,), (6,)), mixed[0]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's files."""
    path = tmp_path_factory.mktemp("teacher") / "tiny"
    save_model(path)
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    """The model, as transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def distributions(model: Any, row: Row) -> Any:
    """The log-probabilities of all tokens at each position of the completion, [n, V], worked out row by row."""
    with torch.no_grad():
        logits = model(torch.tensor([[*row.prompt, *row.completion]])).logits[0]
    return torch.log_softmax(logits[len(row.prompt) - 1 : -1].float(), dim=-1)


def scores_by_hand(model: Any, row: Row) -> Scores:
    every = distributions(model, row)
    top = every.topk(TOP_K, dim=-1)
    own = every.gather(-1, torch.tensor(row.completion).unsqueeze(-1)).squeeze(-1)
    return Scores(own, top_ids=top.indices, top_log_probs=top.values)


def answers(model: Any) -> Callable[[Any], Any]:
    """What a server that has the model says."""

    def answer(body: Any) -> Any:
        ids = body["prompt"]
        every = distributions(model, Row((ids[0],), tuple(ids[1:])))
        k = body.get("prompt_logprobs", body.get("logprobs"))
        tops = [
            {int(each): float(values[each]) for each in values.topk(k).indices}
            | {token: float(values[token])}
            for values, token in zip(every, ids[1:], strict=True)
        ]
        if body.get("echo"):
            told = {
                "tokens": [f"token_id:{each}" for each in [*ids, 7]],
                "token_logprobs": [
                    None,
                    *(top[token] for top, token in zip(tops, ids[1:], strict=True)),
                    -1.0,
                ],
                "top_logprobs": [None, *({f"token_id:{at}": v for at, v in top.items()} for top in tops), {}],
            }
            return {"choices": [{"logprobs": told}]}
        entries = [{str(at): {"logprob": value} for at, value in top.items()} for top in tops]
        return {"choices": [{"prompt_logprobs": [None, *entries]}]}

    return answer


def adapted(model: Any) -> Any:
    """The model under an adapter that was trained: it says something else than the model."""
    from peft import LoraConfig, get_peft_model

    student = get_peft_model(
        copy.deepcopy(model),
        LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"]),
    )
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    return student.train()


KEPT = (Wanted(), Wanted(top_k=TOP_K), Wanted(tokens=5), Wanted(hidden=True, log_probs=False))
WAYS = ("local", "small batches", "self", "cached", "kept", "endpoint", "echo", "precomputed")


@pytest.fixture(params=WAYS)
def teacher(request: pytest.FixtureRequest, model: Any, directory: Path, tmp_path: Path) -> Iterator[Teacher]:
    """The model as a teacher, in one of the ways there are."""
    match request.param:
        case "local":
            yield load(str(directory), gpu=False)
        case "small batches":
            yield LocalTeacher(copy.deepcopy(model), identity=None, batch_tokens=64)
        case "self":
            yield SelfTeacher(adapted(model), identity=None)
        case "cached":
            yield CachedTeacher(load(str(directory), gpu=False), ScoreCache(tmp_path, 1 << 24))
        case "kept":
            local = load(str(directory), gpu=False)
            for wanted in KEPT:
                CachedTeacher(local, ScoreCache(tmp_path, 1 << 24)).score(rows(), wanted)
            yield CachedTeacher(Unasked(local), ScoreCache(tmp_path, 1 << 24))
        case "precomputed":
            with (tmp_path / "scores.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(scored_rows.line(by_hand(model, row)) for row in rows())
            precomputed = PrecomputedTeacher(tmp_path / "scores.jsonl")
            yield precomputed
            precomputed.close()
        case way:
            with ScoringServer(answers(model)) as server:
                yield EndpointTeacher(server.url, "tiny", echo=way == "echo", timeout_s=120.0)


class Unasked:
    """A teacher that must not be asked."""

    def __init__(self, teacher: LocalTeacher) -> None:
        self.identity = teacher.identity

    def score(self, rows: Any, wanted: Wanted) -> list[Scores]:
        raise AssertionError((rows, wanted))


def by_hand(model: Any, row: Row) -> scored_rows.ScoredRow:
    scores = scores_by_hand(model, row)
    assert scores.top_ids is not None
    assert scores.top_log_probs is not None
    return scored_rows.ScoredRow(
        row,
        tuple(scores.log_probs.tolist()),
        top_ids=tuple(map(tuple, scores.top_ids.tolist())),
        top_log_probs=tuple(map(tuple, scores.top_log_probs.tolist())),
    )


def gives_hidden(teacher: Teacher) -> bool:
    return not isinstance(teacher, (EndpointTeacher, PrecomputedTeacher))


def test_each_token_has_the_log_probability_that_the_model_gives_it(teacher: Teacher, model: Any) -> None:
    for row, scores in zip(rows(), teacher.score(rows(), Wanted()), strict=True):
        torch.testing.assert_close(scores.log_probs, scores_by_hand(model, row).log_probs, **TOLERANCE)
        assert (scores.hidden, scores.top_ids, scores.top_log_probs) == (None, None, None)


def test_the_likeliest_tokens_are_the_models(teacher: Teacher, model: Any) -> None:
    for row, scores in zip(rows(), teacher.score(rows(), Wanted(top_k=TOP_K)), strict=True):
        own = scores_by_hand(model, row)
        torch.testing.assert_close(scores.log_probs, own.log_probs, **TOLERANCE)
        torch.testing.assert_close(scores.top_log_probs, own.top_log_probs, **TOLERANCE)
        assert scores.top_ids is not None
        assert own.top_ids is not None
        assert scores.top_ids.tolist() == own.top_ids.tolist()


def test_a_prefix_has_the_scores_that_it_has_in_the_whole(teacher: Teacher) -> None:
    whole, some = (teacher.score(rows(), Wanted(tokens=tokens)) for tokens in (None, 5))
    for row, every, first in zip(rows(), whole, some, strict=True):
        assert len(first.log_probs) == min(5, len(row.completion))
        torch.testing.assert_close(first.log_probs, every.log_probs[:5], **TOLERANCE)


def test_the_whole_distribution_follows_from_the_hidden_states(teacher: Teacher, model: Any) -> None:
    wanted = Wanted(hidden=True, log_probs=False)
    if not gives_hidden(teacher):
        with pytest.raises(UnfitTeacherError):
            teacher.score(rows(), wanted)
        return
    for row, scores in zip(rows(), teacher.score(rows(), wanted), strict=True):
        assert scores.hidden is not None
        assert len(scores.log_probs) == 0
        logits = head_of(model).logits(scores.hidden)
        with torch.no_grad():
            torch.testing.assert_close(
                torch.log_softmax(logits, dim=-1), distributions(model, row), **TOLERANCE
            )


def test_a_student_is_left_as_it_was_when_it_was_its_own_teacher(model: Any) -> None:
    student = adapted(model)
    ids = torch.tensor([[5, 6, 7]])
    before = student.eval()(ids).logits
    student.train()
    SelfTeacher(student, identity=None).score(rows(), Wanted())
    assert student.training
    torch.testing.assert_close(student.eval()(ids).logits, before)
    assert any(each.requires_grad for each in student.parameters())


def test_a_teacher_is_known_by_its_files_and_by_how_it_computes(
    directory: Path, tmp_path: Path, model: Any
) -> None:
    one, same = (load(str(directory), gpu=False).identity for _ in range(2))
    adapter = tmp_path / "adapter"
    adapted(model).save_pretrained(adapter)
    under = load(str(directory), gpu=False, adapter=str(adapter))
    assert one == same
    assert None not in {one, under.identity}
    assert one != under.identity


def test_an_adapter_of_an_earlier_job_teaches_with_its_base(
    directory: Path, tmp_path: Path, model: Any
) -> None:
    student = adapted(model).eval()
    student.save_pretrained(tmp_path / "adapter")
    teacher = load(str(directory), gpu=False, adapter=str(tmp_path / "adapter"))
    for row, scores in zip(rows(), teacher.score(rows(), Wanted()), strict=True):
        torch.testing.assert_close(
            scores.log_probs, scores_by_hand(student, row).log_probs, atol=1e-3, rtol=0.0
        )


def test_a_teacher_in_4_bits_says_nearly_the_same_and_is_another(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    tokenizer = make_tokenizer()
    tiny_llama(tokenizer, hidden_size=64, intermediate_size=128).save_pretrained(
        tmp_path
    )  # blocks are of 64 weights
    whole, small = (load(str(tmp_path), gpu=False, four_bit=four_bit) for four_bit in (False, True))
    assert len({whole.identity, small.identity, None}) == 3
    for one, other in zip(whole.score(rows(), Wanted()), small.score(rows(), Wanted()), strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, atol=0.5, rtol=0.0)
        assert not torch.equal(one.log_probs, other.log_probs)


def test_a_teacher_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be loaded") as caught:
        load(str(tmp_path), gpu=False)
    assert caught.value.code == "model_unloadable"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_head_that_is_trained_is_refused_because_its_weight_is_not_what_makes_the_logits(
    model: Any,
) -> None:
    from peft import LoraConfig, get_peft_model

    student = get_peft_model(
        copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["lm_head"])
    )
    with pytest.raises(JobError, match="leave it out") as caught:
        head_of(student)
    assert caught.value.code == "adapter_on_head"


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 4.0}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
    ],
)
def test_logits_are_scaled_and_capped_as_the_models_family_does(
    family: str, settings: dict[str, float]
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **settings)).eval()
    row = Row((3, 4, 5), (6, 7, 8, 9))
    (scores,) = LocalTeacher(model, identity=None).score([row], Wanted())
    own = distributions(model, row).gather(-1, torch.tensor(row.completion).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(scores.log_probs, own, **TOLERANCE)


def test_rows_of_like_length_are_scored_together_with_little_padding() -> None:
    draw = random.Random(1)
    lengths = [draw.randrange(1, 600) for _ in range(300)]
    found = list(batches(lengths, 4096))
    assert sorted(at for batch in found for at in batch) == list(range(300))
    padded = [len(batch) * max(lengths[at] for at in batch) for batch in found]
    assert max(padded) <= 4096
    assert sum(padded) < 1.1 * sum(lengths)
    assert list(batches([5000, 10], 4096)) == [[1], [0]]  # what is too long is scored alone
