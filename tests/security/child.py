"""A process of its own for one class of attacks: `python child.py async loops`.

It writes a journal, a line before and a line after each attack, so that a crash or a hang can be put down to one.
"""

from __future__ import annotations

import faulthandler
import io
import itertools
import json
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from tests.security.attacks import ATTACKS, STUCK, Ending
from tests.support import eventually
from wippy_queue import Engine
from wippy_queue.errors import Kind
from wippy_queue.events import Event, MessageFailed, ServiceStateChanged, WorkerDied, WorkerStuck
from wippy_queue.telemetry.logs import RedactingFilter, TextFormatter

_TIMEOUT: Final = 0.12  # seconds that an attack may take
_FLOOD_TIMEOUT: Final = 0.4  # the same where the memory limit is to end it first, on a busy machine too
_STUCK_TIMEOUT: Final = 1.0  # the same where nothing ends it: the message behind it is to keep it on any machine
_TRIES: Final = 3  # of what a machine that stalls keeps from its end
MEMORY_LIMIT: Final = 16 << 20  # bytes
WATCHDOG: Final = 100  # seconds; it needs no interpreter lock
PATIENCE: Final = 30.0  # seconds until something counts as lost

MODULES: Final = [
    "json",
    "queue",
    "logger",
    "store",
    "env",
    "hash",
    "base64",
    "uuid",
    "time",
    "ctx",
    "funcs",
    "security",
    "probe",
]
PRELUDE: Final = "".join(f"local {name} = require('{name}')\n" for name in MODULES)

NORMAL: Final = """
local function normal(body)
  local parts = {}
  for i = 1, 20 do parts[#parts + 1] = string.format('%d', i * body.n) end
  table.sort(parts, function(a, b) return #a > #b end)
  local co = coroutine.wrap(function(x) coroutine.yield(x * 2) end)
  local ok, why = pcall(error, 'expected', 0)
  local text = ('x'):rep(3):gsub('x', 'y') .. json.encode(json.decode('{"a":{},"b":[1,null]}').b)
  local err = errors.new{message = 'm', kind = errors.INVALID}
  assert(poison == nil and getmetatable('') == false and getmetatable(_G) == nil)
  assert(tostring(err) == 'm' and err:kind() == 'Invalid')
  assert(queue.message():header('attempts') == 0 and uuid.validate(uuid.v4()) and not ok and why == 'expected')
  probe.done(body.n, #table.concat(parts) + co(body.n) + #text)
end
"""


def expected(n: int) -> int:
    """Return what a normal handler comes to."""
    return sum(len(str(i * n)) for i in range(1, 21)) + 2 * n + len("yyy[1,null]")


class Probe:
    """What the handlers tell, and what the engine tells about them."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.begun = 0.0
        self.done: dict[int, tuple[str, int, int, float]] = {}  # n -> thread, its id, result, when
        self.failed: dict[str, MessageFailed] = {}
        self.failed_at: dict[str, float] = {}
        self.stuck: list[WorkerStuck] = []
        self.died: list[WorkerDied] = []
        self.states: list[ServiceStateChanged] = []

    def functions(self) -> Mapping[str, Any]:
        return {"done": self._done, "begin": self._begin, "text": lambda n: "x" * n, "fail": self._fail}

    def _begin(self) -> None:
        self.begun = time.monotonic()

    def _done(self, n: int, result: int) -> None:
        with self.condition:
            self.done[n] = (threading.current_thread().name, threading.get_ident(), result, time.monotonic())
            self.condition.notify_all()

    @staticmethod
    def _fail() -> None:
        raise RuntimeError("on purpose")

    def on_event(self, event: Event) -> None:
        with self.condition:
            if isinstance(event, MessageFailed):
                self.failed[event.message_id] = event
                self.failed_at[event.message_id] = time.monotonic()
            elif isinstance(event, WorkerStuck):
                self.stuck.append(event)
            elif isinstance(event, WorkerDied):
                self.died.append(event)
            elif isinstance(event, ServiceStateChanged):
                self.states.append(event)
            self.condition.notify_all()

    def wait(self, condition: Any, what: str) -> None:
        with self.condition:
            assert self.condition.wait_for(condition, PATIENCE), f"lost: {what}"


def handler(bodies: Mapping[str, str]) -> str:
    attacks = "".join(f"attacks[{json.dumps(name)}] = function(...)\n{body}\nend\n" for name, body in bodies.items())
    return f"""{PRELUDE}
local function spin() while true do end end
local attacks = {{}}
{attacks}{NORMAL}
return function(body)
  if body.attack then
    probe.begin()
    return attacks[body.attack](body)
  end
  return normal(body)
end"""


NESTED: Final = {
    "recursive": "return function(n) local v, err = require('funcs').call('app:recursive', n + 1) return v, err end",
    "fork": "local funcs = require('funcs') return function(n) for i = 1, 9 do funcs.call('app:fork', n + 1) end end",
    "endless": "return function() while true do end end",
    "echo": "return function(...) return (...) end",
    # As deep into the stack of C as Lua lets it, and there into the next function.
    "deep": """local funcs = require('funcs')
      local function deep(n, k)
        if n == 0 then return funcs.call('app:deep', k + 1) end
        local v, err
        local text = ('x'):gsub('x', function() v, err = deep(n - 1, k) end)
        return v, err
      end
      return function(k) return deep(94, k) end""",
}


def timeout_of(name: str) -> float:
    """Return the time limit of the attacks of a class."""
    return _FLOOD_TIMEOUT if name == "memory" else _TIMEOUT


def make_engine(
    mode: str, bodies: Mapping[str, str], probe: Probe, timeout: float = _TIMEOUT, **settings: Any
) -> Engine:
    auto = {"auto_start": True}
    retry = {"max_attempts": 1, "initial_delay": "1ms"}
    entries: list[dict[str, Any]] = [
        {"name": "memory", "kind": "queue.driver.memory"},
        *({"name": n, "kind": "queue.queue", "driver": "memory", "retry": retry} for n in ("victims", "neighbours")),
        {"name": "sink", "kind": "queue.queue", "driver": "memory", "options": {"max_length": 9, "overflow": "reject"}},
        {"name": "cache", "kind": "store.memory", "max_size": 10, "lifecycle": auto},
        *(
            {"name": name, "kind": "function.lua", "source": source, "modules": ["funcs"]}
            for name, source in NESTED.items()
        ),
        {"name": "victim", "kind": "function.lua", "source": handler(bodies), "modules": MODULES},
        {"name": "neighbour", "kind": "function.lua", "source": handler({}), "modules": MODULES},
        {
            "name": "victim-consumer", "kind": "queue.consumer", "queue": "victims", "func": "victim",
            "lifecycle": auto, "timeout": timeout, "memory_limit": MEMORY_LIMIT,
        },
        {
            "name": "neighbour-consumer", "kind": "queue.consumer", "queue": "neighbours", "func": "neighbour",
            "lifecycle": auto,
        },
    ]  # fmt: skip
    engine = Engine.from_entries(entries, settings={"lua": {"hook_mode": mode, **settings}})
    engine.module("probe", probe.functions())
    engine.subscribe(probe.on_event)
    return engine


class Neighbour:
    """Sends messages to the other consumer all the while, and looks how long they take."""

    def __init__(self, engine: Engine, probe: Probe) -> None:
        self._engine = engine
        self._probe = probe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slowest = 0.0
        self.count = 0
        self.wrong: list[str] = []
        self._thread.start()

    def _run(self) -> None:
        n = -1
        while n == -1 or not self._stop.wait(0.02):
            n -= 1
            began = time.monotonic()
            self._engine.publish("app:neighbours", {"n": n})
            self._probe.wait(lambda n=n: n in self._probe.done, f"the neighbour's message {n}")
            self.slowest = max(self.slowest, time.monotonic() - began)
            result = self._probe.done.pop(n)[2]
            self.count += 1
            if result != expected(n):
                self.wrong.append(f"{n}: {result}")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)


def journal(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def send_normal(engine: Engine, probe: Probe, name: str, number: int, part: int) -> MessageFailed | None:
    """Send a normal message; return how it failed, None where it went well."""
    normal, mark = f"normal-{number}-{part}", f"mark-{number}-{part}"
    engine.publish("app:victims", {"n": number}, message_id=normal)
    probe.wait(lambda: number in probe.done or normal in probe.failed, f"the message behind {name}")
    # Events come in order, but on a thread of their own: a sign that all before it have come.
    engine.publish("app:victims", "no table", message_id=mark)
    probe.wait(lambda: mark in probe.failed, "an event")
    return probe.failed.get(normal)


def attack(engine: Engine, probe: Probe, name: str, number: int, timeout: float) -> MessageFailed | None:
    """Send one attack and, behind it, a normal message; return how the attack failed, None where it went well."""
    stuck = len(probe.stuck)
    probe.begun = 0.0
    before = f"attack-{number}"
    engine.publish("app:victims", {"attack": name}, message_id=before)
    normal, part = send_normal(engine, probe, name, number, 0), 0
    while normal is not None and normal.kind is Kind.TIMEOUT and part < _TRIES - 1:
        began = probe.failed_at.get(before, probe.begun)
        before = normal.message_id
        if probe.failed_at[before] - began < timeout:
            break  # that was no stall: it was killed before its time was over
        part += 1
        normal = send_normal(engine, probe, name, number, part)
    begun, failed = probe.begun, probe.failed.get(f"attack-{number}")
    thread, ident, result, when = probe.done.get(number, ("", 0, 0, 0.0))
    journal(
        end=name,
        took=round(when - begun, 4) if begun and part == 0 else None,
        error=None if failed is None else failed.error[:300],
        length=0 if failed is None else len(failed.error),
        kind=None if failed is None else failed.kind.value,
        thread=thread,
        ident=ident,
        right=result == expected(number),
        normal=str(normal or ""),
        stuck=len(probe.stuck) - stuck,
        memory=memory_in_use(),
    )
    return failed


def memory_in_use() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize()


def run(mode: str, attacks: Mapping[str, tuple[Ending, str]], timeout: float) -> None:
    probe = Probe()
    with make_engine(mode, {name: body for name, (_, body) in attacks.items()}, probe, timeout) as engine:
        neighbour = Neighbour(engine, probe)
        numbers = itertools.count(1)
        for name, (wanted, _) in attacks.items():
            for _ in range(_TRIES):
                journal(begin=name)
                failed = attack(engine, probe, name, next(numbers), timeout)
                if wanted != "memory" or failed is None or failed.kind is not Kind.TIMEOUT:
                    break
        neighbour.stop()
        names = [name for name in logging.root.manager.loggerDict if name.startswith("wippy_queue.app.app:victim")]
        journal(
            neighbour=neighbour.count, slowest=round(neighbour.slowest, 3), wrong=neighbour.wrong, loggers=len(names),
            died=[str(event) for event in probe.died], threads=threading.active_count(),
        )  # fmt: skip
    journal(stopped=True)


def run_stuck(mode: str, attacks: Mapping[str, str]) -> None:
    """One worker after the other gets stuck, until there are more than may be."""
    probe = Probe()
    engine = make_engine(mode, attacks, probe, _STUCK_TIMEOUT, max_stuck_workers=1)
    engine.start()
    for number, name in enumerate(attacks, 1):
        journal(begin=name)
        engine.publish("app:victims", {"attack": name}, message_id=f"attack-{number}")
        probe.wait(lambda n=number: len(probe.stuck) >= n, "the event WorkerStuck")
        if number == 1:
            engine.publish("app:victims", {"n": 1})
            probe.wait(lambda: 1 in probe.done, "the message behind")
        journal(end=name, normal=probe.done.get(1, ("", 0, 0, 0.0))[2] == expected(1), stuck=probe.stuck[-1].stuck)
    probe.wait(lambda: any(s.new == "Failed" for s in probe.states), "the state Failed")
    failed = [state for state in probe.states if state.new == "Failed"]
    eventually(lambda: engine.info("app:victims").parked == len(attacks), "the failure policy has the messages")
    parked = engine.info("app:victims").parked
    errors = sorted(event.error for event in probe.failed.values())
    began = time.monotonic()
    engine.stop(timeout=PATIENCE)
    journal(failed=[failed[0].service, failed[0].error], parked=parked, errors=errors, stop=time.monotonic() - began)


def main() -> None:
    mode, name, *only = sys.argv[1:]
    faulthandler.enable()
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    handler = logging.StreamHandler(io.TextIOWrapper(open(os.devnull, "wb"), encoding="utf-8"))  # noqa: PTH123, SIM115
    handler.setFormatter(TextFormatter())
    handler.addFilter(RedactingFilter())
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    if name == "stuck":
        run_stuck(mode, STUCK)
    else:
        attacks = {key: value for key, value in ATTACKS[name].items() if not only or key == only[0]}
        run(mode, attacks, timeout_of(name))
    sys.stdout.flush()
    os._exit(0)  # stuck threads would make the interpreter's own end slow


if __name__ == "__main__":
    main()
