"""Ids: ten characters behind a prefix that says of what. Pure."""

from __future__ import annotations

import hashlib

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that looks like something else
LENGTH = 10  # characters, of five bits each


def derived(prefix: str, *parts: str) -> str:
    """The id that always comes of the same parts, and of no others as far as 50 bits tell."""
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest)
    return prefix + "".join(ALPHABET[number >> 5 * place & 31] for place in range(LENGTH))
