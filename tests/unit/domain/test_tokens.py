"""Bearer tokens: found by their secret, open until revoked or expired, their use worth an event an hour."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetuned.domain import decisions, facts, tokens
from finetuned.domain.registers import Token
from finetuned.domain.world import World

HOUR = 3600 * 1_000_000
SECRET = tokens.secret_of("tok-abc", "r" * 43)
TOKEN = Token(id="tok-abc", scope="read", sha256=tokens.secret_hash(SECRET), name=None, created_at=1)


def test_a_secret_names_its_token_and_opens_only_that() -> None:
    other = replace(TOKEN, id="tok-abd", sha256=tokens.secret_hash(tokens.secret_of("tok-abd", "s" * 43)))
    known = {each.id: each for each in (TOKEN, other)}
    assert SECRET == "ft_abc_" + "r" * 43
    assert tokens.find(known, SECRET) is TOKEN
    for wrong in ("", "ft_", "ft_abc", "ft_abc_", "ft_abd_" + "r" * 43, SECRET + "r", "tok-abc", "\udcff"):
        assert tokens.find(known, wrong) is None


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "now", "why"),
    [
        (None, None, 10**18, None),
        (100, None, 99, None),
        (100, None, 100, "expired at 1970-01-01 00:00 UTC"),
        (100, 50, 60, "revoked at"),
        (100, 50, 200, "revoked at"),
    ],
)
def test_a_token_is_open_until_it_is_revoked_or_expires(
    expires_at: int | None, revoked_at: int | None, now: int, why: str | None
) -> None:
    token = replace(TOKEN, expires_at=expires_at, revoked_at=revoked_at)
    assert tokens.is_open(token, now) == (why is None)
    told = tokens.why_shut(token, now)
    assert (why is None) == (told is None)
    assert (why or "") in (told or "")


def test_uses_are_recorded_of_known_tokens_at_most_once_an_hour() -> None:
    world = World()
    world.tokens["tok-abc"] = TOKEN
    world.tokens["tok-old"] = replace(TOKEN, id="tok-old", last_used_at=5 * HOUR)
    world.tokens["tok-new"] = replace(TOKEN, id="tok-new", last_used_at=5 * HOUR + 1)
    used = {"tok-new", "tok-old", "tok-abc", "tok-gone"}
    events = decisions.use_tokens(world, used, now=6 * HOUR)
    assert [(event.stream, event.type, event.actor) for event in events] == [
        ("token/tok-abc", facts.TokenUsed.type, "token:tok-abc"),
        ("token/tok-old", facts.TokenUsed.type, "token:tok-old"),
    ]
