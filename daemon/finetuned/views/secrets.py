"""How secrets look to the outside: by name. Pure."""

from __future__ import annotations

from finetuned import wire
from finetuned.secrets.store import SecretName


def secret(each: SecretName) -> wire.Secret:
    """A secret as lists show it."""
    return {"name": each.name, "object": "secret", "writable": each.writable}
