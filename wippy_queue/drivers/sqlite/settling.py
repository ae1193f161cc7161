"""Settlements on their way to the file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from wippy_queue.delivery import Settlement
from wippy_queue.drivers.sqlite import statements
from wippy_queue.drivers.sqlite.board import Board
from wippy_queue.drivers.sqlite.database import now_ms

_log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    board: Board  # of the owner that holds the lease
    slot: int
    row: int


class Flush:
    """Settlements that are being sent."""

    def __init__(self) -> None:
        self.batch: list[Settlement] = []

    def apply(self, db: sqlite3.Connection, queue: int, token: int) -> None:
        acked, released, requeued = [], [], []
        now = now_ms()
        for settlement in self.batch:
            row = settlement.delivery.receipt.row
            if settlement.action == "ack":
                acked.append(row)
            elif settlement.action == "release":
                released.append(row)
            else:
                message = settlement.message or settlement.delivery.message
                requeued.append((row, statements.to_row(message, settlement.delay, None, now)))
        statements.settle(db, queue, token, acked=acked, released=released, requeued=requeued)

    def take(self) -> list[Settlement]:
        """Return what is still to be told; whoever asks tells it."""
        batch, self.batch = self.batch, []
        return batch


def tell(batch: Sequence[Settlement], error: Exception | None) -> None:
    for settlement in batch:
        try:
            settlement.finish(error)
        except Exception:
            _log.exception("the callback of a settlement failed")
