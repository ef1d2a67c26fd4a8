"""The way in for changes of tokens: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from finetuned.commands.appending import Appending
from finetuned.domain import decisions, facts, tokens
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.domain.idempotency import Once
from finetuned.domain.registers import Token
from finetuned.secrets.scan import refuse_secrets


@dataclass(slots=True)
class TokenCommands:
    """What can be done with bearer tokens. Each method returns after its events are on disk."""

    appending: Appending
    new_id: Callable[[str], str]

    async def create(
        self,
        *,
        scope: str,
        name: str | None,
        actor: str,
        expires_in: int | None = None,
        once: Once | None = None,
    ) -> tuple[Token, str]:
        """Make a bearer token. The secret is returned once and never kept, so a repetition is ``Rejected``.

        It opens nothing any more after ``expires_in`` seconds; ``None`` for never.
        """
        if scope not in tokens.SCOPES:
            raise InvalidRequestError(
                f"scope must be one of {', '.join(tokens.SCOPES)}; got {scope!r}.", param="scope"
            )
        refuse_secrets(name, where="name")
        token_id = self.new_id("tok-")
        secret = tokens.secret_of(token_id, secrets.token_urlsafe(32))
        fact = facts.TokenCreated(
            id=token_id,
            scope=scope,
            sha256=tokens.secret_hash(secret),
            name=name,
            expires_at=None if expires_in is None else self.appending.now() + expires_in * 1_000_000,
        )
        appended = await self.appending.execute(
            lambda _world: decisions.create_token(fact, actor=actor),
            subject=f"token/{token_id}",
            actor=actor,
            once=once,
        )
        if once is not None and once.replayed:
            made = appended.subject.removeprefix("token/")
            raise Rejected(
                "secret_shown_once",
                f"This request made the token {made} before, and its secret was shown then only; revoke it"
                f" (`finetune tokens revoke {made}`) and make another with a new key.",
            )
        world = await self.appending.board.world()
        return world.tokens[token_id], secret

    async def revoke(self, token_id: str, *, actor: str) -> None:
        """Close a token. Raises ``NotFoundError`` if there is none."""
        await self.appending.log.execute(
            lambda world: decisions.revoke_token(world, token_id, actor=actor), necessary=True
        )

    async def record_uses(self, used: Collection[str]) -> None:
        """Record that these tokens opened the door, each at most once an hour."""
        now = self.appending.now()
        await self.appending.log.execute(lambda world: decisions.use_tokens(world, used, now=now))
