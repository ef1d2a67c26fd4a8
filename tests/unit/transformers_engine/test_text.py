"""Text as it comes: no character is split, and a string that ends it is never told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from tests.acceptance.sft.tiny import make_tokenizer

from finetuned_decoding.token_choice import Sampling
from finetuned_transformers.detokenizer import Detokenizer, decoding
from finetuned_transformers.row_sampling import Choice, Drawn, draw
from finetuned_transformers.stop_strings import StopStrings
from finetuned_transformers.writing import Writing, joined

pytestmark = pytest.mark.torch

TOKENIZER = make_tokenizer()
MANY_BYTES = "grün 火の車 👩‍👩‍👧 the apple"


def told(ids: list[int]) -> list[str]:
    reader = Detokenizer(decoding(TOKENIZER))
    return [*(reader.add(each) for each in ids), reader.rest()]


def decoded(ids: list[int]) -> str:
    text: str = TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def test_pieces_are_the_text_and_have_whole_characters() -> None:
    ids = TOKENIZER(MANY_BYTES)["input_ids"]
    pieces = told(ids)
    assert "".join(pieces) == MANY_BYTES
    assert not any("\ufffd" in each for each in pieces)
    assert len(pieces) > 10


BYTES = [number for number in range(len(TOKENIZER)) if len(TOKENIZER.convert_ids_to_tokens(number)) == 1]


@given(st.lists(st.sampled_from(BYTES) | st.integers(0, len(TOKENIZER) - 1), max_size=60))
def test_pieces_of_any_tokens_are_what_they_decode_to(ids: list[int]) -> None:
    assert "".join(told(ids)) == decoded(ids)


def test_bytes_that_become_no_character_are_told_at_the_end() -> None:
    ids = TOKENIZER("火")["input_ids"][:-1]
    pieces = told(ids)
    assert pieces[:-1] == [""] * len(ids)
    assert pieces[-1] == decoded(ids)


def test_bytes_that_never_become_a_character_do_not_hold_the_text_up() -> None:
    (half,) = TOKENIZER("\x80".encode("latin-1").decode("latin-1"))["input_ids"][:1]
    pieces = told([half] * 40)
    assert "".join(pieces) == decoded([half] * 40)
    assert len("".join(pieces[:20])) > 10


def test_tokens_without_text_are_decoded_once_and_not_with_each_that_follows() -> None:
    decode = decoding(TOKENIZER)
    lengths: list[int] = []

    def watched(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return decode(ids)

    reader = Detokenizer(watched)
    end = TOKENIZER.eos_token_id
    assert [reader.add(end) for _ in range(200)] == [""] * 200
    assert max(lengths) < 20
    assert reader.add(TOKENIZER("the")["input_ids"][0]) == "the"


def sentencepiece() -> Any:
    """A tokenizer that reads as those of Llama 2 and Mistral: the space that a text begins with is dropped."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "a": 1, "\u2581world": 2, "\u2581again": 3, "\u2581Hello": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_a_completion_keeps_the_space_that_it_goes_on_with() -> None:
    writing = Writing(0, sentencepiece(), StopStrings([]), tells=True, before=[4])
    pieces = [writing.add(Drawn(token, -1.0)) for token in (2, 3)]
    whole = joined([piece for piece in (*pieces, writing.end("length")) if piece is not None])
    assert whole.text == " world again"
    assert [each.token.text for each in whole.tokens] == [" world", " again"]


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.randoms())
def test_a_stop_string_ends_the_text_wherever_it_is_parted(
    text: str, strings: list[str], chance: random.Random
) -> None:
    stops, found, at = StopStrings(strings), "", 0
    while at < len(text) and not stops.found:
        size = chance.randint(1, 4)
        found += stops.add(text[at : at + size])
        assert not any(each in found for each in strings)
        at += size
    if not stops.found:
        found += stops.rest()
    first = min((text[:at].find(each) for each in strings if each in text[:at]), default=len(text))
    assert found == text[:first]
    assert stops.found == any(each in text for each in strings)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    stops = StopStrings(["\n\nUser:"])
    assert stops.add("fine") == "fine"
    assert stops.add(" then\n") == " then"
    assert stops.add("\nUse") == ""
    assert stops.add("ful") == "\n\nUseful"


def written(text: str, *stops: str, finish: Any = "length") -> Any:
    writing = Writing(0, TOKENIZER, StopStrings(stops), tells=True)
    pieces = []
    for token in TOKENIZER(text)["input_ids"]:
        piece = writing.add(Drawn(token, -1.0))
        if piece is not None:
            pieces.append(piece)
            if piece.finish is not None:
                return joined(pieces)
    return joined([*pieces, writing.end(finish)])


def test_tokens_are_told_with_the_text_they_are_of() -> None:
    whole = written(MANY_BYTES)
    assert whole.text == MANY_BYTES
    assert len(whole.tokens) == len(TOKENIZER(MANY_BYTES)["input_ids"])
    assert [each.offset for each in whole.tokens] == sorted(each.offset for each in whole.tokens)


def test_tokens_of_a_stop_string_are_not_told() -> None:
    cut = written("the apple is red", " is")
    assert cut.text == "the apple"
    assert cut.finish == "stop"
    assert "".join(each.token.text for each in cut.tokens) == "the apple"


def choice(seed: int, **how: Any) -> Choice:
    settings: dict[str, Any] = {"max_new_tokens": 1, "stop_ids": frozenset(), "temperature": 1.0} | how
    return Choice(sampling=Sampling(**settings), numbers=random.Random(seed), top=3)


def test_a_row_draws_the_same_whatever_is_drawn_beside_it() -> None:
    import torch

    torch.manual_seed(0)
    logits = torch.randn(4, 300)
    alone = [draw(logits[:1], [one])[0] for one in [choice(7)] for _ in range(5)]
    mine = choice(7)
    others = [choice(1, temperature=0.0), choice(2, top_p=0.5), choice(3, top_k=2, temperature=0.7)]
    beside = [draw(logits[[1, 0, 2, 3]], [others[0], mine, *others[1:]])[1] for _ in range(5)]
    assert [each.id for each in alone] == [each.id for each in beside]
    assert len({each.id for each in alone}) > 1


def test_rows_are_drawn_by_their_own_settings() -> None:
    import torch

    logits = torch.tensor([[0.0, 5.0, 4.0, -9.0]] * 3)
    for _ in range(20):
        greedy, narrow, two = draw(
            logits, [choice(0, temperature=0.0), choice(1, top_p=0.1), choice(2, top_k=2, temperature=2.0)]
        )
        assert (greedy.id, narrow.id) == (1, 1)
        assert two.id in {1, 2}
    expected = logits[0].log_softmax(-1)
    assert [token for token, _ in greedy.top] == [1, 2, 0]
    assert greedy.log_prob == pytest.approx(float(expected[1]))
    assert two.top[1][1] == pytest.approx(float(expected[2]))
