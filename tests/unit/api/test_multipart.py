"""Forms: whatever pieces they come in they mean the same, and what is none is refused."""

from __future__ import annotations

import random

import pytest

from finetuned.api.multipart import End, FormParser, Head, boundary_of
from finetuned.domain.errors import InvalidRequestError

BOUNDARY = "b0undary"


def part(
    content: bytes, disposition: str = 'form-data; name="file"; filename="rows.jsonl"', more: str = ""
) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def parsed(*blocks: bytes) -> list[tuple[Head, bytes]]:
    """The parts of a whole form with their content."""
    parser, found = FormParser(BOUNDARY), list[tuple[Head, bytes]]()
    content, ended = b"", False
    for block in blocks:
        for event in parser.feed(block):
            match event:
                case Head():
                    head, content = event, b""
                case bytes():
                    assert event
                    content += event
                case End.PART:
                    found.append((head, content))
                case End.FORM:
                    ended = True
    parser.finish()
    assert ended
    return found


def test_parts_have_names_filenames_and_their_bytes_as_they_are() -> None:
    body = form(
        part(b"batch", 'form-data; name="purpose"'),
        part(b'{"a": "\r\n--b0undar"}\n\r\n'),
        part(b"", 'form-data; name="empty"'),
        part(b"x", "form-data; name=file; filename*=UTF-8''%C3%BC.jsonl", "Content-Type: text/plain\r\n"),
    )
    assert parsed(body) == [
        (Head("purpose", None), b"batch"),
        (Head("file", "rows.jsonl"), b'{"a": "\r\n--b0undar"}\n\r\n'),
        (Head("empty", None), b""),
        (Head("file", "ü.jsonl"), b"x"),
    ]


def test_pieces_of_any_size_mean_the_same() -> None:
    chance = random.Random(7)
    content = bytes(chance.choice(b"\r\n-b0undary{}") for _ in range(5_000)).replace(b"--b0undary", b"--b1")
    body = b"a word before\r\n" + form(part(content), part(b"v", 'form-data; name="a"')) + b"and after"
    whole = parsed(body)
    assert whole[0][1] == content
    for size in (1, 2, 3, 7, 64, 1_000):
        assert parsed(*(body[at : at + size] for at in range(0, len(body), size))) == whole


def test_a_part_is_handed_on_as_it_comes() -> None:
    parser = FormParser(BOUNDARY)
    list(parser.feed(part(b"")[:-2]))
    held = sum(len(event) for event in parser.feed(b"x" * 100_000) if isinstance(event, bytes))
    assert held > 100_000 - len(BOUNDARY) - 8


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        (b"", "invalid_form", "no part"),
        (b"x" * 10_000, "invalid_form", "boundary does not come"),
        (part(b"x"), "upload_incomplete", "last boundary"),
        (part(b"x")[:-4], "upload_incomplete", "last boundary"),
        (form(part(b"x"))[:-4], "upload_incomplete", "last boundary"),
        (f"--{BOUNDARY}\r\n".encode() + b"a: " + b"x" * 10_000, "invalid_form", "headers of a part"),
        (f"--{BOUNDARY}\r\nnonsense\r\n\r\nx\r\n".encode(), "invalid_form", "no header"),
        (f"--{BOUNDARY}\r\nA: b\r\n\r\nx\r\n".encode(), "invalid_form", "no Content-Disposition"),
        (form(part(b"x", "attachment; name=a")), "invalid_form", "not form-data"),
        (form(part(b"x", "form-data")), "invalid_form", "no name"),
        (form(part(b"x", more="Content-Transfer-Encoding: base64\r\n")), "invalid_form", "encoded"),
        (
            form(part(b"x", more="Content-Type: multipart/mixed; boundary=c\r\n")),
            "invalid_form",
            "form itself",
        ),
        (part(b"x") + f"--{BOUNDARY}ing\r\n".encode(), "invalid_form", "boundary is followed"),
        (form(part(b"x", "form-data; name=a" + "; b=c" * 16)), "invalid_form", "parameters"),
        (form(part(b"x", "form-data; name=a; filename*=idna''abc%ff")), "invalid_form", "decoded"),
        (form(part(b"x", "form-data; name*=unicode_escape''%5cud800")), "invalid_form", "printed"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, code: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why) as caught:
        parsed(body)
    assert caught.value.stable_code == code


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 71}",
        "multipart/form-data; boundary*=idna''a%ff",
        "multipart/form-data; boundary*=utf-8''a%0d%0ab",
        "multipart/form-data; boundary*=unicode_escape''%5cud800",
    ],
)
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequestError, match="boundary") as caught:
        boundary_of(content_type)
    assert caught.value.stable_code == "invalid_form"
    assert boundary_of('multipart/form-data; boundary="a b"') == "a b"


def test_a_content_type_of_many_parameters_is_not_looked_into() -> None:
    with pytest.raises(InvalidRequestError, match="longer than 512"):
        boundary_of("multipart/form-data; boundary=b" + "; a=b" * 100)
