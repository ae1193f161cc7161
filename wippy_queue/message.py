"""A message, and the names of the headers that the engine writes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

HeaderValue = str | int | float | bool
Encoding = Literal["json", "msgpack", "binary"]

ATTEMPTS: Final = "attempts"
TIMESTAMP: Final = "timestamp"
ORIGINAL_QUEUE: Final = "x_original_queue"
DEAD_LETTER_REASON: Final = "x_dead_letter_reason"
DEAD_LETTER_TIME: Final = "x_dead_letter_time"
DEAD_LETTER_ERROR: Final = "x_dead_letter_error"
DEAD_LETTER_FUNCTION: Final = "x_dead_letter_function"  # whose handler gave up, where one did
RESERVED_PREFIX: Final = "x_"

NO_HEADERS: Final[Mapping[str, HeaderValue]] = MappingProxyType({})


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What travels from a publisher to a handler. Nothing ever changes one: a retry is a new value with the same id.

    A struct of msgspec: it is made in a fifth of the time that a class of attrs takes, and Python's garbage collector,
    which looks at every object that it knows, does not look at a million of them that wait in memory.
    """

    id: str
    body: bytes  # encoded once at publish, decoded once in the handler
    encoding: Encoding = "json"
    headers: Mapping[str, HeaderValue] = NO_HEADERS  # as published; see all_headers()
    timestamp: float  # Unix seconds of the publish
    attempts: int = 0  # deliveries so far whose handler had started and which did not end in an ack
    priority: int = 0  # 0..9, higher first
    delay: float = 0.0  # seconds from publish until it may be delivered
    expires_at: float | None = None  # Unix seconds
    # Not "" where an id is published again on purpose, as by a replay, for backends that would drop the second one. It
    # does not travel.
    edition: str = ""

    def all_headers(self) -> dict[str, HeaderValue]:
        """Return the headers as a handler sees them: those published, ``timestamp`` and ``attempts``.

        A dead letter brings the attempts of its first life as a header; they win over those in the dead-letter queue.
        """
        return {TIMESTAMP: self.timestamp, ATTEMPTS: self.attempts, **self.headers}
