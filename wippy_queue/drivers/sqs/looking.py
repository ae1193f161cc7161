"""Looking into a queue and emptying it, which SQS knows only as receives."""

from __future__ import annotations

import logging
import time
from typing import Any

from wippy_queue.drivers.sqs import messages
from wippy_queue.drivers.sqs.batches import BATCH
from wippy_queue.drivers.sqs.queue import SqsQueue
from wippy_queue.errors import Unavailable
from wippy_queue.message import Message

_log = logging.getLogger(__name__)

_WAIT = 1.0  # seconds; a receive that waits asks all of SQS's servers, one that does not asks some


def peek(queue: SqsQueue, limit: int) -> list[Message]:
    """Return up to ``limit`` waiting messages; others do not get them meanwhile, and each counts a receive more."""
    seen: dict[str, Any] = {}
    try:
        while len(seen) < limit:
            raws = queue.receive(min(BATCH, limit - len(seen)), _WAIT)
            if not raws:
                break
            seen.update({raw["MessageId"]: raw for raw in raws})
    finally:
        queue.hand_back(list(seen.values()))
    return [messages.from_received(raw).message for raw in seen.values()]


def purge(queue: SqsQueue) -> int:
    """Take out what is ready, one by one: SQS's own purge takes what is in flight too, and for a minute what comes.

    Delayed messages cannot be received, so it is left to SQS's purge to drop them, if nothing is in flight.
    """
    began = time.time()
    count = 0
    while raws := queue.receive(BATCH, _WAIT):
        newer = [raw for raw in raws if messages.from_received(raw).sent > began]
        older = [raw for raw in raws if raw not in newer]
        failures = queue.delete([{"ReceiptHandle": raw["ReceiptHandle"]} for raw in older]) if older else {}
        count += len(older) - len(failures)
        if newer:
            queue.hand_back(newer)
            break
    left = queue.info()
    if left.delayed and not left.in_flight:
        try:
            queue.guarded(queue.client.purge)
            count += left.delayed + (left.ready or 0)  # what has become ready since the last look
        except Unavailable as error:
            fields = {"queue": queue.queue.id, "messages": left.delayed, "error": str(error)}
            _log.warning("delayed messages could not be purged", extra={"fields": fields})
    queue.wake()
    return count
