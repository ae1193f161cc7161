"""A process of its own for the stress run: `python stress.py async 60`."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import sys
import time
from typing import Any, Final

from tests.security.attacks import ATTACKS
from tests.security.child import MODULES, Probe, expected, handler, memory_in_use
from tests.support import eventually
from wippy_queue import Engine, Kind
from wippy_queue.events import Event, MessageFailed

WORKERS: Final = 8
WAVE: Final = 120  # messages that are sent before the next ones are; three out of four are normal

# What writes no log without end, and leaves the queue `sink` alone.
_ATTACKS: Final = {
    f"{group}: {name}": body
    for group, attacks in ATTACKS.items()
    for name, (_, body) in attacks.items()
    if group != "modules" and "app:" not in body and "kept" not in body
}


def make_engine(mode: str, probe: Probe) -> Engine:
    auto = {"auto_start": True}
    victim: dict[str, Any] = {"kind": "queue.consumer", "queue": "mixed", "func": "victim", "lifecycle": auto}
    engine = Engine.from_entries(
        [
            {"name": "memory", "kind": "queue.driver.memory"},
            {"name": "mixed", "kind": "queue.queue", "driver": "memory", "retry": {"max_attempts": 1}},
            {"name": "victim", "kind": "function.lua", "source": handler(_ATTACKS), "modules": MODULES},
            {"name": "consumer", **victim, "concurrency": WORKERS, "timeout": 0.1, "memory_limit": "16MiB"},
        ],
        settings={"lua": {"hook_mode": mode, "max_stuck_workers": 100}},
    )
    engine.module("probe", probe.functions())
    engine.subscribe(probe.on_event)
    return engine


class Books(Probe):
    """Counts failures in place of keeping them."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[str, int] = {}
        self.late: set[str] = set()  # normal messages that got no core in time
        self.lost: list[str] = []  # normal messages that failed for another reason

    def on_event(self, event: Event) -> None:
        if isinstance(event, MessageFailed):
            kind = "memory" if "memory limit" in event.error else event.kind.value
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            if event.message_id.startswith("attack"):
                return
            if event.kind is Kind.TIMEOUT:
                self.late.add(event.message_id)
            else:
                self.lost.append(f"{event.message_id}: {event.error}")
        else:
            super().on_event(event)


def main() -> None:
    mode, seconds = sys.argv[1], float(sys.argv[2])
    logging.disable()
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 50, exit=True)
    probe, dice, names = Books(), random.Random(seconds), list(_ATTACKS)
    attacks = normal = 0
    wrong: list[str] = []
    unhandled: set[str] = set()
    engine = make_engine(mode, probe)
    engine.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sent = []
        for _ in range(WAVE):
            if dice.random() < 0.25:
                attacks += 1
                engine.publish("app:mixed", {"attack": dice.choice(names)}, message_id=f"attack-{attacks}")
            else:
                normal += 1
                sent.append(normal)
                engine.publish("app:mixed", {"n": normal}, message_id=f"normal-{normal}")
        engine.join("app:mixed", timeout=40)
        for n in sent:
            found = probe.done.pop(n, None)
            if found is None:
                unhandled.add(f"normal-{n}")
            elif found[2] != expected(n):
                wrong.append(f"{n}: {found[2]}")
    engine.stop(timeout=10)
    eventually(lambda: unhandled <= probe.late | {text.partition(":")[0] for text in probe.lost}, "all events")
    print(
        json.dumps(
            {
                "mode": mode, "attacks": attacks, "normal": normal, "wrong": wrong, "lost": probe.lost,
                "late": len(probe.late),
                "kinds": probe.kinds, "stuck": len(probe.stuck), "died": [str(event) for event in probe.died],
                "memory": memory_in_use(),
            }
        ),
        flush=True,
    )  # fmt: skip
    os._exit(0)


if __name__ == "__main__":
    main()
