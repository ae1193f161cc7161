"""CONTRACT of a key-value store that all workers of an application share.

Keys are text, values are bytes: the Lua module `store` encodes what handlers put in, so Python never looks inside.
"""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class StoreEntry:
    """A value under its key, as it was at one moment."""

    key: str
    value: bytes
    version: int  # grows with every write of the key, and is never used again after a delete
    expires_at: float | None = None  # Unix seconds


@attrs.frozen(kw_only=True)
class StorePage:
    """A part of a listing, in the order of the keys."""

    entries: tuple[StoreEntry, ...]
    cursor: str | None = None  # what to pass as ``after`` for the next page; None: this was the last


@attrs.frozen(kw_only=True)
class StoreInfo:
    """What a store is and how full it is."""

    backend: str  # "memory"
    durable: bool
    entries: int
    max_size: int


class Store(Protocol):
    """Every method may be called from any thread; those between start and stop raise Unavailable otherwise."""

    def start(self) -> None:
        """Get ready; idempotent."""

    def stop(self) -> None:
        """Let go of everything but the entries, which a later start finds again; idempotent."""

    def get(self, key: str) -> StoreEntry:
        """Return what is stored. Raises NotFound where there is nothing, or it has expired."""

    def has(self, key: str) -> bool: ...

    def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        only_if_absent: bool = False,
        if_version: int | None = None,
    ) -> StoreEntry:
        """Store a value and return it with its new version.

        Args:
            key: not empty.
            value: any bytes.
            ttl: seconds until it expires; None or 0: never.
            only_if_absent: raise AlreadyExists where the key exists.
            if_version: raise Conflict (retryable) unless the key exists with this version.

        Raises:
            Unavailable: the store is full.
            Invalid: an empty key, a negative ttl, or both conditions at once.
        """

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it was there."""

    def list(self, prefix: str = "", *, limit: int = 100, after: str | None = None) -> StorePage:
        """Return up to ``limit`` (1 or more) entries whose key begins with ``prefix``, those after ``after``."""

    def info(self) -> StoreInfo: ...
