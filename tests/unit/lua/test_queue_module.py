"""The module `queue`: publishing, and the message in hand."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from tests.unit.lua.support import Published, call, make_delivery, make_function, make_host, make_worker
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Invalid, PermissionDenied, QueueFull, Unavailable, WippyQueueError
from wippy_queue.handler import ACK, Outcome, WorkerContext


def publish(arguments: str, published: Published | None = None) -> tuple[Any, Published]:
    published = published or Published()
    body = f"""
    local ok, err = queue.publish({arguments})
    if err then return {{err:kind(), err:retryable(), err:message()}} end
    return ok
    """
    return call(body, modules=("queue",), host=make_host(published)), published


@pytest.mark.parametrize(
    ("data", "body", "encoding"),
    [
        ("{id = 'task-123'}", b'{"id":"task-123"}', "json"),
        ("'text'", b'"text"', "json"),
        ("''", b'""', "json"),
        ("1", b"1", "json"),
        ("1.0", b"1.0", "json"),
        ("false", b"false", "json"),
        ("{1, 2, {}}", b"[1,2,[]]", "json"),
        ("'\\255\\0'", b"\xff\x00", "binary"),
    ],
)
def test_publish_encodes_with_the_codec_of_the_queue(data: str, body: bytes, encoding: str) -> None:
    result, published = publish(f"'app:tasks', {data}")
    assert result is True
    assert published.messages == [("app:tasks", body, encoding, {})]


def test_publish_encodes_msgpack() -> None:
    result, published = publish("'app:packed', {raw = '\\255', text = 'x'}")
    assert result is True
    (_, body, encoding, _) = published.messages[0]
    assert encoding == "msgpack"
    assert msgspec.msgpack.decode(body) == {"raw": b"\xff", "text": "x"}


def test_publish_of_bytes_at_top_level_is_binary_whatever_the_codec() -> None:
    _, published = publish("'app:packed', '\\255'")
    assert published.messages[0][1:3] == (b"\xff", "binary")


def test_headers_travel_with_their_types() -> None:
    _, published = publish(
        "'app:tasks', 1, {correlation_id = 'c-1', priority = 9, ratio = 9.0, flag = true, ['wippy.delay'] = '5s'}"
    )
    headers = published.messages[0][3]
    assert headers == {"correlation_id": "c-1", "priority": 9, "ratio": 9.0, "flag": True, "wippy.delay": "5s"}
    assert type(headers["priority"]) is int
    assert type(headers["ratio"]) is float


def test_other_header_values_are_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result, published = publish(
            "'app:tasks', 1, {a = {}, b = print, c = 0/0, d = errors.new('x'), [1] = 'one', keep = 'x'}"
        )
    assert result is True
    assert published.messages[0][3] == {"keep": "x"}
    (record,) = caplog.records
    assert sorted(record.fields["headers"].split(", ")) == ["1", "a", "b", "c", "d"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("''", "id of the queue"),
        ("nil, 1", "id of the queue"),
        ("'app:tasks'", "there is no data"),
        ("'app:tasks', {}", "must not be empty"),
        ("'app:packed', {}", "must not be empty"),
        ("'app:tasks', {x = '\\255'}", "the data: "),
        ("'app:tasks', print", "cannot encode a function"),
        ("'app:tasks', {e = errors.new('x')}", "cannot encode a"),
        ("'app:tasks', 1, 'headers'", "headers must be a table"),
    ],
)
def test_what_cannot_be_published_is_invalid(arguments: str, why: str) -> None:
    (kind, retryable, message), published = publish(arguments)
    assert (kind, retryable) == ("Invalid", False)
    assert why in message
    assert published.messages == []


def test_an_empty_object_that_was_decoded_is_empty_too() -> None:
    body = "local ok, err = queue.publish('app:tasks', ...) return err:kind()"
    assert call(body, {}, modules=("queue",)) == "Invalid"
    assert call("return queue.publish('app:tasks', ...)", [None], modules=("queue",)) is True


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (Unavailable("broker away"), "Internal", True),
        (QueueFull("full"), "Internal", True),
        (PermissionDenied("not yours"), "PermissionDenied", False),
        (Invalid("x_ headers are ours"), "Invalid", False),
    ],
)
def test_errors_of_the_engine_get_the_kinds_that_handlers_know(
    error: WippyQueueError, kind: str, retryable: bool
) -> None:
    result, _ = publish("'app:tasks', 1", Published(error=error))
    assert result == [kind, retryable, error.message]


def test_an_unknown_queue_is_internal_and_not_retryable() -> None:
    for function in ("publish('app:none', 1)", "publish('app:none', {1})", "info('app:none')"):
        body = f"local ok, err = queue.{function} return {{ok == nil, err:kind(), err:retryable()}}"
        assert call(body, modules=("queue",)) == [True, "Internal", False]


def test_info() -> None:
    assert call("return queue.info('app:tasks')", modules=("queue",)) == {
        "message_count": 3, "ready": 1, "in_flight": 2, "delayed": 0, "consumer_count": 1,
    }  # fmt: skip
    assert call("local _, err = queue.info('') return err:kind()", modules=("queue",)) == "Invalid"


def handle(body: str, worker: WorkerContext | None = None, **fields: Any) -> Outcome:
    session = make_function(f"local queue = require('queue') {body}", modules=("queue",)).open(worker or make_worker())
    return session.handle([make_delivery(**fields)])[0]


def test_the_message_in_hand() -> None:
    text = """
    return function()
      local m = queue.message()
      local h = m:headers()
      assert(m:id() == 'm-7' and type(m) == 'userdata')
      assert(m:header('correlation_id') == 'c' and m:header('none') == nil)
      assert(h.attempts == 2 and h.timestamp == 1700000000.5 and h.priority == 9 and math.type(h.priority) == 'integer')
      h.attempts = 99
      assert(m:headers().attempts == 2, 'every caller gets a copy')
    end
    """
    outcome = handle(
        text, id="m-7", headers={"correlation_id": "c", "priority": 9}, attempts=2, timestamp=1_700_000_000.5
    )
    assert outcome == ACK


def test_there_is_no_message_outside_a_consumer_nor_while_the_chunk_loads() -> None:
    assert call("local m, err = queue.message() return {m == nil, err:kind()}", modules=("queue",)) == [True, "Invalid"]
    assert (
        handle("local m, err = queue.message() assert(not m and err:kind() == 'Invalid') return function() end") == ACK
    )


@pytest.mark.parametrize(("method", "ok"), [("ack", True), ("nack", False)])
def test_settling_by_hand_is_single_shot(method: str, ok: bool) -> None:
    settled: list[bool] = []

    def settle(delivery: Delivery, outcome: Outcome) -> bool:
        settled.append(outcome.ok)
        return delivery.claim()

    text = f"""
    return function()
      local m = queue.message()
      assert(m:{method}() == true)
      for _, again in ipairs {{'ack', 'nack'}} do
        local ok, err = m[again](m)
        assert(ok == nil and err:kind() == errors.INVALID and err:message():find('settled already'), tostring(err))
      end
    end
    """
    assert handle(text, make_worker(settle)) == ACK
    assert settled[0] is ok


def test_settling_by_hand_with_auto_ack_is_invalid() -> None:
    text = "return function() local ok, err = queue.message():ack() return nil, err end"
    outcome = handle(text, make_worker(auto_ack=True))
    assert isinstance(outcome.error, WippyQueueError)
    assert "auto_ack" in outcome.error.message


def test_a_message_is_released_when_its_handler_has_returned() -> None:
    text = """
    local queue = require('queue')
    local kept, co
    return function(n)
      if n == 1 then
        kept = queue.message()
        co = coroutine.create(function(m)
          coroutine.yield()
          return m:id()
        end)
        coroutine.resume(co, kept)
        return
      end
      for _, method in ipairs {'id', 'headers', 'header', 'ack', 'nack'} do
        local value, err = kept[method](kept, 'x')
        assert(value == nil and err:kind() == 'Invalid' and err:message():find('released'), method)
      end
      local _, value, err = coroutine.resume(co)
      assert(value == nil and err:message():find('released'))
    end
    """
    session = make_function(text, modules=("queue",)).open(make_worker())
    assert session.handle([make_delivery(b"1")])[0] == ACK
    second = make_delivery(b"2")
    assert session.handle([second])[0] == ACK
    assert not second.claimed, "the kept message must not settle the next one"


def test_methods_called_with_a_dot_say_so() -> None:
    text = "return function() local id, err = queue.message().id() return nil, err end"
    outcome = handle(text)
    assert outcome.error is not None
    assert "colon" in outcome.error.message
