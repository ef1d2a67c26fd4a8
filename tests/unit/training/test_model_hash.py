"""A model is known by the bytes that decide what it says."""

from __future__ import annotations

from pathlib import Path

from finetuned_training.model_hash import hash_of


def test_a_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    def model(name: str, weights: bytes, **others: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(weights)
        (directory / "config.json").write_text("{}")
        for file, text in others.items():
            (directory / f"{file}.md").write_text(text)
        return directory

    one, same, other = model("one", b"1"), model("same", b"1", README="a card"), model("other", b"2")
    assert hash_of([one]) == hash_of([same]) != hash_of([other])
    assert hash_of([one, other]) != hash_of([other])
    assert hash_of([tmp_path / "one" / "nothing"]) is None
