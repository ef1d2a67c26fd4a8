from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetuned.datasets import references
from finetuned.domain.errors import FinetunedError, InvalidRequestError, NotFoundError
from finetuned.domain.registers import Dataset, DatasetVersion

HASH = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)


def version(sha256: str) -> DatasetVersion:
    return DatasetVersion(
        version=sha256, path=f"/d/{sha256}", bytes=1, format="jsonl", source="upload", rows=1, created_at=1,
        created_by="uid:1",
    )  # fmt: skip


def dataset(*hashes: str, name: str = "colours") -> Dataset:
    return Dataset(name=name, versions=tuple(version(each) for each in hashes))


def resolve(reference: str, *datasets: Dataset) -> str:
    parsed = references.parse(reference)
    assert parsed is not None
    return references.resolve({each.name: each for each in datasets}, parsed).version


@pytest.mark.parametrize("value", ["/data/rows.jsonl", "owner/rows", "rows.jsonl", "Dataset:rows", ""])
def test_what_does_not_begin_with_the_scheme_is_no_reference(value: str) -> None:
    assert references.parse(value) is None


@given(st.lists(HASH, min_size=1, unique=True))
def test_a_bare_name_means_the_newest_version(hashes: list[str]) -> None:
    assert resolve("dataset:colours", dataset(*hashes)) == hashes[-1]


@given(st.lists(HASH, min_size=1, unique=True), st.integers(0), st.integers(8, 64), st.booleans())
def test_a_prefix_means_the_one_version_that_begins_with_it(
    hashes: list[str], index: int, length: int, upper: bool
) -> None:
    wanted = hashes[index % len(hashes)]
    prefix = wanted[:length]
    assume(sum(each.startswith(prefix) for each in hashes) == 1)
    assert resolve(f"dataset:colours@{prefix.upper() if upper else prefix}", dataset(*hashes)) == wanted


@given(HASH, HASH, st.integers(8, 63))
def test_a_prefix_of_two_versions_is_refused_rather_than_guessed(
    first: str, second: str, length: int
) -> None:
    second = first[:length] + second[length:]
    assume(first != second)
    with pytest.raises(InvalidRequestError) as caught:
        resolve(f"dataset:colours@{first[:length]}", dataset(first, second))
    assert caught.value.stable_code == "ambiguous_version"
    assert "give more digits" in caught.value.message


@pytest.mark.parametrize(
    ("reference", "error", "code", "remedy"),
    [
        ("dataset:colour", NotFoundError, "not_found", "Did you mean 'colours'?"),
        ("dataset:colours@00000000", NotFoundError, "not_found", "it has " + "ab" * 6),
        ("dataset:colours@abcd", InvalidRequestError, "invalid_version", "at least 8 digits"),
        ("dataset:colours@", InvalidRequestError, "invalid_version", "at least 8 digits"),
        ("dataset:colours@ghghghgh", InvalidRequestError, "invalid_version", "hexadecimal"),
        ("dataset:../../etc", InvalidRequestError, "invalid_reference", "dataset:NAME@HASH"),
        ("dataset:", InvalidRequestError, "invalid_reference", "dataset:NAME@HASH"),
    ],
)
def test_a_reference_to_nothing_is_refused_with_the_remedy(
    reference: str, error: type[FinetunedError], code: str, remedy: str
) -> None:
    with pytest.raises(error) as caught:
        resolve(reference, dataset("ab" * 32))
    assert caught.value.stable_code == code
    assert remedy in caught.value.message


@pytest.mark.parametrize("name", ["", "register", "a/b", "a@b", "a:b", ".hidden", "-x", "a" * 97, "a b", "é"])
def test_a_name_that_could_not_stand_in_a_reference_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="letters, digits, dots") as caught:
        references.check_name(name)
    assert (caught.value.stable_code, caught.value.param) == ("invalid_name", "name")


@given(HASH)
def test_a_reference_reads_as_it_was_written(sha256: str) -> None:
    for text in ("dataset:a.b-c_1", f"dataset:a@{sha256}"):
        assert str(references.parse(text)) == text
