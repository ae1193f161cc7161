"""A day in the shop: forty orders, one of them wrong, and a mail server that is busy at first."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from pathlib import Path

from wippy_queue import Engine
from wippy_queue.errors import Unavailable
from wippy_queue.telemetry.logs import TextFormatter


class MailServer:
    """Stands for a real one. Handlers call it from many threads at once, so it locks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = itertools.count(1)
        self.sent: list[str] = []

    def send(self, to: str, subject: str, text: str) -> bool:
        with self._lock:
            if next(self._calls) <= 3:
                raise Unavailable("the mail server is busy")
            self.sent.append(f"{to}: {subject}: {text}")
        return True


def order(number: int, *, cents: int | str = 1999) -> dict[str, object]:
    return {
        "id": f"order-{number:02}",
        "customer": f"customer-{number:02}@example.com",
        "lines": [{"cents": cents, "quantity": 1 + number % 3}],
    }


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())  # shows the fields of a record, not only its message
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    server = MailServer()
    engine = Engine.load(Path(__file__).parent)
    engine.module("mail", {"send": server.send})

    with engine:
        engine.publish_many("shop:orders", [order(number) for number in range(1, 40)])
        engine.publish("shop:orders", order(40, cents="free"))

        if (engine.info("shop:orders").ready or 0) > 10:  # None: the driver cannot tell
            engine.start_service("shop:order_helper")
            engine.start_service("shop:mail_helper")

        engine.join("shop:orders", "shop:mails", "shop:refused", timeout=60)

    print(f"{len(server.sent)} mails sent, the first: {min(server.sent)}")
    return 0 if len(server.sent) == 39 else 1


if __name__ == "__main__":
    sys.exit(main())
