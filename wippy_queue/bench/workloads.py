"""What the contestants are given to do: one Lua handler and its messages for each workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

QUEUE: Final = "bench:tasks"
DONE_QUEUE: Final = "bench:done"  # where the workload json publishes to
MODULES: Final = ("bench", "queue", "time")  # what the handlers require

Body = dict[str, Any]

# Every handler begins like this. A marked message tells that its handler has started: the first one of a backlog, and
# all those whose latency is taken. The others pay one look into a table, and no call of Python.
_START: Final = """
local started, queue, time = require("bench").started, require("queue"), require("time")
local function compute(loops)
  local x = 1
  for _ = 1, loops do x = (x * 1103515245 + 12345) % 2147483648 end
  return x
end
return function(body)
  if body.mark then started(body.mark) end
"""


@attrs.frozen(kw_only=True)
class Workload:
    """One kind of handler.

    Args:
        name: as ``--workload`` names it.
        about: one line for people.
        source: the Lua text; ``{millisecond}`` stands for the loops that take 1 ms on this machine.
        body: the n-th message's body.
        computing: seconds that a message computes, on average, beside what every message costs.
        waiting: seconds that a message waits in ``time.sleep``, on average.
        messages: how many make a run, where nobody says otherwise.
        concurrency: how many workers it is run with, where nobody says otherwise.
    """

    name: str
    about: str
    source: str
    body: Callable[[int], Body]
    computing: float = 0.0
    waiting: float = 0.0
    messages: int
    concurrency: int = 4

    def text(self, loops: int) -> str:
        """Return the handler's Lua text, with 1 ms of computing as ``loops`` turns of its loop."""
        return (_START + self.source).replace("{millisecond}", str(loops))

    def rate(self, asked: float, concurrency: int) -> float:
        """Return the messages per second for the latency: what is asked for, but at most half of what can be handled.

        One core and ``concurrency`` workers are what any contestant has, so it is the same for all of them.
        """
        busy = max(self.computing, (self.computing + self.waiting) / concurrency)
        return min(asked, 0.5 / busy) if busy else asked


def _small(number: int) -> Body:
    return {"n": number, "data": _FILLING}


def _order(number: int) -> Body:
    return {
        "id": f"order-{number:08}",
        "status": "new",
        "total": 12_950,
        "paid": True,
        "customer": {
            "id": number % 1000,
            "name": "Marianne Müller-Lüdenscheidt",
            "email": "marianne@example.com",
            "visits": 17,
            "address": {"street": "Unter den Linden 77", "city": "Berlin", "zip": "10117", "country": "DE"},
        },
        "items": [
            {"sku": f"sku-{item:05}", "title": "A thing that somebody wants", "count": item, "price": 19.5 * item}
            for item in range(1, 7)
        ],
        "tags": ["express", "gift", "returning", "newsletter"],
        "notes": {"delivery": "Ring twice", "internal": None, "scores": [0.25, 0.5, 0.75, 1.0]},
    }


def _mixed(number: int) -> Body:
    kind = {7: "computes", 17: "waits"}.get(number % 20)
    return {"n": number, "data": _FILLING} if kind is None else {"n": number, "data": _FILLING, kind: True}


_FILLING: Final = "x" * 179  # makes a body of 200 bytes, give or take the digits of n

_ALL: Final = (
    Workload(
        name="noop",
        about="200 bytes, decoded, nothing done",
        source="end",
        body=_small,
        messages=40_000,
    ),
    Workload(
        name="json",
        about="a nested body of about 850 bytes, decoded, changed and published to a second queue",
        source="""
  body.status = "packed"
  body.customer.visits = body.customer.visits + 1
  body.items[2].count = 0
  body.tags[#body.tags + 1] = "seen"
  local ok, err = queue.publish("bench:done", body)
  if err then return nil, err end
end""",
        body=_order,
        messages=12_000,
    ),
    Workload(
        name="cpu",
        about="1 ms of computing in Lua",
        source="compute({millisecond}) end",
        body=_small,
        computing=0.001,
        messages=2_000,
    ),
    Workload(
        name="sleep",
        about="10 ms in time.sleep",
        source="time.sleep(10 * time.MILLISECOND) end",
        body=_small,
        waiting=0.010,
        messages=10_000,
        concurrency=100,
    ),
    Workload(
        name="mixed",
        about="of 20 messages 18 do nothing, one computes for 2 ms, one waits for 5 ms",
        source="""
  if body.computes then compute(2 * {millisecond}) elseif body.waits then time.sleep(5 * time.MILLISECOND) end
end""",
        body=_mixed,
        computing=0.0001,
        waiting=0.00025,
        messages=12_000,
        concurrency=16,
    ),
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({workload.name: workload for workload in _ALL})
