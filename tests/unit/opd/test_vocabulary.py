"""Student and teacher mean the same tokens by the same ids, or the job is refused with the first that differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from finetuned_opd import vocabulary
from finetuned_opd.vocabulary import Vocabulary, check, difference, read, require_texts
from finetuned_sdk import JobError, RefusedError

WORDS = ("<eos>", "a", "b", "ab")


def model(directory: Path, size: int, words: Any = WORDS, added: Mapping[int, str] | None = None) -> Path:
    """The files of a model that say what its vocabulary is."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"vocab_size": size}))
    vocab = words if isinstance(words, list) else {word: number for number, word in enumerate(words)}
    tokens = [{"id": number, "content": word, "special": True} for number, word in (added or {}).items()]
    content = {"model": {"type": "BPE", "vocab": vocab}, "added_tokens": tokens}
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return directory


def test_the_same_vocabulary_is_accepted_whoever_wrote_it_down(tmp_path: Path) -> None:
    one = model(tmp_path / "one", 8, added={4: "<pad>"})
    other = model(tmp_path / "other", 8, added={4: "<pad>"})
    (other / "tokenizer.json").write_text(
        json.dumps(json.loads((one / "tokenizer.json").read_text()), indent=2)
    )
    check(one, other, full=True, param="teacher")
    assert read(one).tokens == {0: "<eos>", 1: "a", 2: "b", 3: "ab", 4: "<pad>"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"words": ("<eos>", "a", "c", "ab")}, "token 2 is 'b' to the student .* and 'c' to the teacher"),
        ({"added": {4: "<think>"}}, "token 4 is nothing to the student .* and '<think>' to the teacher"),
        ({"added": {3: "<x>"}}, "token 3 is 'ab' to the student .* and '<x>' to the teacher"),
    ],
)
def test_the_first_token_that_differs_is_named(tmp_path: Path, changes: Any, told: str) -> None:
    student, teacher = model(tmp_path / "student", 8), model(tmp_path / "teacher", 8, **changes)
    with pytest.raises(RefusedError, match=told) as caught:
        check(student, teacher, full=False, param="teacher")
    assert (caught.value.code, caught.value.param) == ("vocabulary_mismatch", "teacher")
    assert "4 tokens and vocab_size 8" in caught.value.message


def test_models_that_are_padded_differently_share_tokens_but_no_whole_distribution(tmp_path: Path) -> None:
    student, teacher = model(tmp_path / "student", 151_936), model(tmp_path / "teacher", 152_064)
    check(student, teacher, full=False, param="teacher")
    with pytest.raises(
        RefusedError, match=r"151,936 logits and the teacher 152,064 .*top_k.*resize"
    ) as caught:
        check(student, teacher, full=True, param="teacher")
    assert caught.value.code == "vocabulary_mismatch"


def test_a_unigram_vocabulary_is_a_list(tmp_path: Path) -> None:
    student = model(tmp_path / "student", 4)
    teacher = model(tmp_path / "teacher", 4, words=[[word, -1.0] for word in WORDS])
    check(student, teacher, full=True, param="teacher")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model": {"vocab": 3}}', '{"model": {"vocab": {"a": "x"}}}', "[" * 9999]
)
def test_what_cannot_be_read_on_submission_is_left_to_the_worker(tmp_path: Path, content: str) -> None:
    student, teacher = model(tmp_path / "student", 4), model(tmp_path / "teacher", 4, words=("z",))
    (teacher / "tokenizer.json").write_text(content)
    assert read(teacher).tokens is None
    check(student, teacher, full=True, param="teacher")
    (teacher / "tokenizer.json").unlink()
    (teacher / "config.json").unlink()
    check(student, teacher, full=True, param="teacher")


def test_the_size_of_a_model_with_more_than_text_is_that_of_its_text(tmp_path: Path) -> None:
    directory = model(tmp_path / "seeing", 4)
    (directory / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 77}}))
    assert read(directory).size == 77


def test_the_check_on_submission_imports_no_torch() -> None:
    code = (
        "import sys, finetuned_opd.vocabulary, finetuned_opd.endpoint, finetuned_opd.scored_rows;"
        "print([each for each in ('torch', 'transformers', 'numpy') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Tokenizer:
    """As much of a tokenizer as is looked at."""

    def __init__(self, words: Mapping[int, str]) -> None:
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: number for number, word in self.words.items()}

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[each] for each in ids)


LARGE = Tokenizer({number: f" w{number}" for number in range(10_000)})


def test_the_worker_compares_tokenizers() -> None:
    same = vocabulary.of_tokenizer(LARGE, 10_000)
    vocabulary.require_same(same, vocabulary.of_tokenizer(LARGE, 10_000), full=True)
    other = Tokenizer({**LARGE.words, 9_000: "other"})
    with pytest.raises(JobError, match="token 9000") as caught:
        vocabulary.require_same(same, vocabulary.of_tokenizer(other, 10_000), full=False)
    assert caught.value.code == "vocabulary_mismatch"


def test_what_is_not_known_is_no_difference() -> None:
    unknown = Vocabulary(None, None)
    assert difference(unknown, Vocabulary(5, {0: "a"}), full=True) is None


def test_a_server_is_asked_for_tokens_from_the_first_to_the_last() -> None:
    ids = vocabulary.probe(LARGE)
    assert (ids[0], ids[-1]) == (0, 9_999)
    assert len(ids) <= vocabulary.PROBED + 2
    assert vocabulary.probe(Tokenizer({7: "x"})) == [7]


def test_the_texts_of_a_server_are_compared_without_the_space_around_them() -> None:
    ids = vocabulary.probe(LARGE)
    texts = [LARGE.words[each].strip() for each in ids]
    require_texts(LARGE, ids, [None, *texts[1:]])
    require_texts(LARGE, ids, ["\ufffd", *texts[1:]])
    with pytest.raises(
        JobError, match=f"token {ids[9]} is 'w{ids[9]}' to the student and 'other' to the server"
    ):
        require_texts(LARGE, ids, [*texts[:9], "other", *texts[10:]])


def test_a_server_that_tells_no_texts_is_taken_at_its_word() -> None:
    ids = vocabulary.probe(LARGE)
    require_texts(LARGE, ids, [None] * len(ids))
