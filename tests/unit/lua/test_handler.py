"""What becomes of what a handler gives back: the table of the specification, line by line."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from tests.unit.lua.support import Published, make_delivery, make_function, make_host, make_worker
from wippy_queue.errors import Canceled, Invalid, Kind, NotFound, Timeout, WippyQueueError
from wippy_queue.handler import ACK, Outcome


def handle(body: str, data: bytes = b"{}", **settings: Any) -> Outcome:
    encoding = settings.pop("encoding", "json")
    session = make_function(f"return function(body) {body} end", **settings).open(make_worker())
    return session.handle([make_delivery(data, encoding)])[0]


@pytest.mark.parametrize(
    "returns",
    [
        "", "return", "return nil", "return true", "return 1", "return 'text'", "return {}", "return false ~= nil",
        "return nil, nil", "return ('x'):gsub('x', 'y')", "return true, 42", "return nil, true", "return nil, {}",
        "return errors.new('first value'), 42",
    ],
)  # fmt: skip
def test_a_normal_return_acks(returns: str) -> None:
    assert handle(returns) == ACK


def test_an_error_that_is_returned_alone_nacks_as_the_seed_says() -> None:
    outcome = handle("return errors.new{message = 'gone', kind = errors.NOT_FOUND}")
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.message) == (Kind.NOT_FOUND, "gone")


def test_a_second_value_that_is_text_is_the_error() -> None:
    for first in ("nil", "true", "42", "false"):
        outcome = handle(f"return {first}, 'disk full'")
        assert outcome.error is not None
        assert (outcome.error.message, outcome.error.kind, outcome.error.retryable) == ("disk full", Kind.UNKNOWN, None)


def test_a_second_value_that_is_an_errors_value_is_the_error() -> None:
    text = (
        "return nil, errors.new{message = 'gone', kind = errors.NOT_FOUND, retryable = false, details = {key = {1, 2}}}"
    )
    error = handle(text).error
    assert error is not None
    assert (error.message, error.kind, error.retryable) == ("gone", Kind.NOT_FOUND, False)
    assert error.details == {"key": [1, 2]}


@pytest.mark.parametrize("returns", ["return false", "return false, nil", "return false, 42"])
def test_false_alone_is_an_error(returns: str) -> None:
    error = handle(returns).error
    assert error is not None
    assert error.message == "the handler returned false"


def test_a_raise_is_an_error_with_its_place_and_trace() -> None:
    session = make_function("local function inner()\n  error('broken')\nend\nreturn function()\n  inner()\nend").open(
        make_worker()
    )
    outcome = session.handle([make_delivery()])[0]
    assert outcome.error is not None
    assert outcome.error.message == "handler.lua:2: broken"
    assert outcome.trace.splitlines() == [
        "handler.lua:2: in upvalue 'inner'",
        "handler.lua:5: in function <handler.lua:4>",
    ]


def test_an_error_value_that_is_raised_keeps_its_kind() -> None:
    outcome = handle(
        "error(errors.new{message = 'later', kind = errors.UNAVAILABLE, retryable = true, details = {retry_after = 3}})"
    )
    assert outcome.error is not None
    assert (outcome.error.message, outcome.error.kind, outcome.error.retryable) == ("later", Kind.UNAVAILABLE, True)
    assert outcome.error.details == {"retry_after": 3}
    assert "handler.lua:1" in outcome.trace


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("nil", "error object is a nil value"),
        ("{}", "error object is a table value"),
        ("42", "42"),
        ("setmetatable({}, {__tostring = function() return 'my own' end})", "my own"),
        ("setmetatable({}, {__tostring = function() error('worse') end})", "error object is a table value"),
        ("'\\255 is no text'", "� is no text"),
    ],
)  # fmt: skip
def test_whatever_is_raised_has_a_message(raised: str, message: str) -> None:
    error = handle(f"error({raised}, 0)").error
    assert error is not None
    assert error.message == message


def test_an_unknown_kind_becomes_unknown_in_python() -> None:
    error = handle("return nil, errors.new{message = 'x', kind = 'Sunspots'}").error
    assert error is not None
    assert error.kind is Kind.UNKNOWN


def test_details_that_cannot_be_encoded_do_not_hide_the_error() -> None:
    error = handle("local d = {} d.d = d return nil, errors.new{message = 'x', kind = 'Invalid', details = d}").error
    assert error is not None
    assert (error.message, error.kind, error.details) == ("x", Kind.INVALID, {})


@pytest.mark.parametrize(
    ("data", "encoding", "check"),
    [
        (
            b'{"a": [1, null, 2.5], "b": {}}',
            "json",
            "type(body) == 'table' and #body.a == 3 and body.a[3] == 2.5 and body.b ~= nil",
        ),
        (b'"text"', "json", "body == 'text'"),
        (b"9223372036854775807", "json", "body == math.maxinteger"),
        (msgspec.msgpack.encode({"a": b"\xff"}), "msgpack", "body.a == '\\xff'"),
        (b"\x00\xff", "binary", "body == '\\x00\\xff'"),
    ],
)
def test_the_body_is_decoded(data: bytes, encoding: str, check: str) -> None:
    assert handle(f"assert({check})", data, encoding=encoding) == ACK


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"{", "json"), (b"", "json"), (b"\xc1", "msgpack"), (b'{"a": 1} x', "json")]
)
def test_a_body_that_cannot_be_decoded_is_told_so(data: bytes, encoding: str) -> None:
    outcome = handle("error('must not run')", data, encoding=encoding)
    assert outcome.undecodable
    assert isinstance(outcome.error, Invalid)
    assert f"message m-1: the body is no {encoding}" in outcome.error.message


def test_a_canceled_error_of_a_module_is_told_to_the_flow() -> None:
    published = Published(error=Canceled("the consumer stops"))
    text = """
    local queue = require('queue')
    return function(n)
      if n == 1 then return nil, 'other' end
      return queue.publish('app:tasks', 1)
    end
    """
    session = make_function(text, modules=("queue",), host=make_host(published)).open(make_worker())
    outcome = session.handle([make_delivery(b"0")])[0]
    assert outcome.canceled
    assert isinstance(outcome.error, WippyQueueError)
    assert outcome.error.kind is Kind.CANCELED
    assert not session.handle([make_delivery(b"1")])[0].canceled, "the next message is judged by itself"


def test_state_in_upvalues_and_globals_lives_as_long_as_the_worker() -> None:
    session = make_function("n = 0 return function() n = n + 1 return nil, tostring(n) end").open(make_worker())
    messages = [error.message for _ in range(3) if (error := session.handle([make_delivery()])[0].error)]
    assert messages == ["1", "2", "3"]


def test_call_hands_plain_data_over_and_back() -> None:
    function = make_function("return function(a, b, ...) return {select('#', ...), a, b == nil, ...} end")
    assert function.call([1, None, "x", {"a": [1.5, None]}, b"\xff"]) == [3, 1, True, "x", {"a": [1.5, None]}, b"\xff"]
    assert make_function("return function() end").call([]) is None
    assert make_function("return function() return nil, nil end").call([]) is None
    assert make_function("return function() return 1, 2 end").call([]) == 1


def test_call_raises_what_lua_gives_as_error() -> None:
    with pytest.raises(WippyQueueError) as caught:
        make_function("return function() return nil, errors.new{message = 'gone', kind = 'NotFound'} end").call([])
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(WippyQueueError, match="returned false"):
        make_function("return function() return false end").call([])
    with pytest.raises(WippyQueueError, match=r"handler\.lua:1: broken") as caught:
        make_function("return function() error('broken') end").call([])
    assert any("Lua stack:" in note for note in caught.value.__notes__)
    with pytest.raises(Invalid, match="cannot encode"):
        make_function("return function() return print end").call([])
    with pytest.raises(Invalid, match="argument 1: expected a JSON value"):
        make_function("return function() end").call([object()])


def test_call_keeps_its_own_time_limit() -> None:
    function = make_function("return function(n) if n == 1 then return 'fine' end while true do end end", timeout=60)
    with pytest.raises(Timeout, match=r"limit of 0\.05 s"):
        function.call([0], timeout=0.05)
    assert function.call([1]) == "fine"


def test_the_limit_of_one_call_is_not_that_of_the_next() -> None:
    text = "return function(seconds) local from = os.clock() while os.clock() - from < seconds do end return 'fine' end"
    for hook_mode in ("async", "count"):
        function = make_function(text, host=make_host(hook_mode=hook_mode))
        assert function.call([0], timeout=1.0) == "fine"
        assert function.call([1.2]) == "fine"


def test_call_is_free_of_messages() -> None:
    text = """
    local queue = require('queue')
    return function() local m, err = queue.message() return {m == nil, err:kind()} end
    """
    assert make_function(text, modules=("queue",)).call([]) == [True, "Invalid"]


def test_call_from_many_threads_at_once() -> None:
    function = make_function("return function(x) for i = 1, 1000 do x = x + 1 end return x end")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.extend(function.call([n]) for n in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(1000, 1050)) * 4)


def test_a_function_that_cannot_be_loaded_again_fails_its_messages_only() -> None:
    fail = threading.Event()

    def step() -> None:
        if fail.is_set():
            raise NotFound("no config")

    text = "local c = require('c') local _, err = c.step() if err then error(err) end return function() end"
    host = make_host(modules={"c": {"step": step}}, recycle_after=1)
    session = make_function(text, modules=("c",), host=host).open(make_worker())
    assert session.handle([make_delivery()])[0].ok
    fail.set()
    outcome = session.handle([make_delivery()])[0]
    assert outcome.error is not None
    assert outcome.error.kind is Kind.NOT_FOUND
    fail.clear()
    assert session.handle([make_delivery()])[0].ok
