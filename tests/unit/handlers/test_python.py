"""Python callables as handlers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import message
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Invalid, Kind, NotFound, WippyQueueError
from wippy_queue.handler import Outcome, WorkerContext
from wippy_queue.handlers import CurrentMessage, PythonFunction, current_message
from wippy_queue.ids import EntryId


class Bench:
    """Runs a function as a worker would, and writes down what was settled by hand."""

    def __init__(self, function: Callable[..., Any], auto_ack: bool = False) -> None:
        self.by_hand: list[Outcome] = []
        context = WorkerContext(
            consumer=EntryId("app:worker"),
            queue=EntryId("app:tasks"),
            worker=0,
            settle=self._settle,
            cancel=threading.Event(),
            auto_ack=auto_ack,
        )
        self.session = PythonFunction(EntryId("app:f"), function).open(context)

    def _settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        self.by_hand.append(outcome)
        return delivery.claim()

    def run(self, body: bytes = b'{"n":1}', **fields: Any) -> Outcome:
        return self.session.handle([Delivery(message(body=body, **fields), 1)])[0]


@pytest.mark.parametrize("result", [None, True, 0, "", {"a": 1}, (None, "err"), []])
def test_any_return_but_false_acks(result: object) -> None:
    assert Bench(lambda _: result).run().ok


def test_false_and_an_exception_nack() -> None:
    outcome = Bench(lambda _: False).run()
    assert not outcome.ok

    def fails(_: object) -> None:
        raise KeyError("account")

    outcome = Bench(fails).run()
    assert outcome.error is not None
    assert outcome.error.kind is Kind.UNKNOWN
    assert str(outcome.error) == "KeyError: 'account'"
    assert "in fails" in outcome.trace


def test_an_error_of_ours_keeps_kind_and_details() -> None:
    def fails(_: object) -> None:
        raise NotFound("no such account", details={"retry_after": 5})

    outcome = Bench(fails).run()
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.details) == (Kind.NOT_FOUND, {"retry_after": 5})


def test_an_exit_in_a_handler_is_a_failure_not_the_end_of_the_worker() -> None:
    outcome = Bench(lambda _: sys.exit(3)).run()
    assert str(outcome.error) == "SystemExit: 3"


def test_the_function_gets_the_decoded_body() -> None:
    seen: list[Any] = []
    bench = Bench(seen.append)
    bench.run(b'{"n":[1,null]}')
    bench.run(b"\x81\xa1n\xc4\x01\xff", encoding="msgpack")
    bench.run(b"\xff", encoding="binary")
    assert seen == [{"n": [1, None]}, {"n": b"\xff"}, b"\xff"]


def test_a_body_that_cannot_be_decoded_is_no_failure_of_the_handler() -> None:
    called: list[Any] = []
    outcome = Bench(called.append).run(b"{")
    assert outcome.undecodable
    assert called == []


def test_the_current_message_is_there_during_the_handler_and_only_then() -> None:
    kept: list[CurrentMessage] = []

    def handler(_: object) -> None:
        found = current_message()
        kept.append(found)
        assert found.id == "m-1"
        assert found.attempts == 2
        assert found.header("k") == "v"
        assert found.header("nothing") is None
        assert set(found.headers) == {"k", "timestamp", "attempts"}

    assert Bench(handler).run(headers={"k": "v"}, attempts=2).ok
    with pytest.raises(Invalid, match="released"):
        kept[0].ack()
    with pytest.raises(Invalid, match="there is no current message"):
        current_message()


def test_settling_by_hand_is_single_shot() -> None:
    def handler(_: object) -> None:
        found = current_message()
        found.nack(WippyQueueError("later"))
        with pytest.raises(Invalid, match="m-1 is settled already"):
            found.ack()

    bench = Bench(handler)
    assert bench.run().ok
    assert [str(outcome.error) for outcome in bench.by_hand[:1]] == ["later"]


def test_by_hand_is_invalid_where_the_engine_has_acked_already() -> None:
    def handler(_: object) -> None:
        with pytest.raises(Invalid, match="auto_ack"):
            current_message().ack()

    bench = Bench(handler, auto_ack=True)
    assert bench.run().ok
    assert bench.by_hand == []


def test_a_call_from_python_gives_the_result_or_the_error() -> None:
    assert PythonFunction(EntryId("app:add"), lambda a, b: a + b).call([1, 2]) == 3
    with pytest.raises(WippyQueueError, match="app:no returned False"):
        PythonFunction(EntryId("app:no"), lambda: False).call([])
    with pytest.raises(WippyQueueError, match="ZeroDivisionError"):
        PythonFunction(EntryId("app:div"), lambda: 1 / 0).call([])
