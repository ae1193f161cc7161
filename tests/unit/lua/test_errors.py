"""The global `errors` of handlers."""

from __future__ import annotations

import pytest

from tests.unit.lua.support import call
from wippy_queue.errors import Invalid, Kind, WippyQueueError


def test_an_error_from_text() -> None:
    body = """
    local err = errors.new('text')
    return {err:kind(), err:message(), err:retryable() == nil, err:details() == nil, tostring(err), type(err)}
    """
    assert call(body) == ["", "text", True, True, "text", "userdata"]


def test_an_error_from_a_table() -> None:
    body = """
    local err = errors.new{message = 'm', kind = errors.CONFLICT, retryable = true, details = {a = 1}}
    return {err:kind(), err:message(), err:retryable(), err:details().a}
    """
    assert call(body) == ["Conflict", "m", True, 1]


def test_empty_details_are_none() -> None:
    assert call("return errors.new{message = 'm', details = {}}:details() == nil") is True


def test_the_kinds() -> None:
    names = (
        "NOT_FOUND ALREADY_EXISTS INVALID PERMISSION_DENIED UNAVAILABLE INTERNAL CANCELED CONFLICT TIMEOUT RATE_LIMITED"
    )
    kinds = "NotFound AlreadyExists Invalid PermissionDenied Unavailable Internal Canceled Conflict Timeout RateLimited"
    body = "local kinds = {} for name in (...):gmatch('%S+') do kinds[#kinds + 1] = errors[name] end return kinds"
    assert call(body, names) == kinds.split()
    assert call("return errors.UNKNOWN") == ""


def test_wrap_keeps_kind_retryable_details_and_message() -> None:
    body = """
    local inner = errors.new{message = 'gone', kind = errors.NOT_FOUND, retryable = false, details = {id = 7}}
    local outer = errors.wrap(inner, 'loading')
    local plain = errors.wrap('text', 'loading')
    return {outer:message(), outer:kind(), outer:retryable(), outer:details().id, plain:message(), plain:kind()}
    """
    assert call(body) == ["gone", "NotFound", False, 7, "text", ""]


def test_a_wrapped_error_says_its_contexts_outermost_first() -> None:
    body = """
    local outer = errors.wrap(errors.wrap(errors.new('gone'), 'loading'), 'starting')
    return {tostring(outer), outer .. '!', '>' .. outer, (outer:stack():match('^[^\\n]*'))}
    """
    whole = "starting: loading: gone"
    assert call(body) == [whole, f"{whole}!", f">{whole}", whole]
    with pytest.raises(WippyQueueError, match="starting: loading: gone"):
        call("return nil, errors.wrap(errors.wrap(errors.new('gone'), 'loading'), 'starting')")


def test_an_error_that_is_returned_alone_is_a_failure_too() -> None:
    with pytest.raises(WippyQueueError, match="gone") as caught:
        call("return errors.new{message = 'gone', kind = errors.NOT_FOUND}")
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize("argument", [2**63, float("inf"), {1: 2}, {"a": [object()]}, (1, 2)])
def test_arguments_that_would_arrive_changed_are_refused(argument: object) -> None:
    with pytest.raises(Invalid, match="argument 1"):
        call("return true", argument)


def test_is_looks_at_the_kind_and_bears_anything() -> None:
    body = """
    local err = errors.new{message = 'm', kind = errors.INVALID}
    local function is_unknown(v) return errors.is(v, '') end
    local matches = {errors.is(err, errors.INVALID), errors.is(err, errors.TIMEOUT)}
    return {matches[1], matches[2], is_unknown('text'), is_unknown(nil), is_unknown({})}
    """
    assert call(body) == [True, False, False, False, False]


def test_concatenation_with_text_and_errors_on_either_side() -> None:
    body = "local a, b = errors.new('a'), errors.new('b') return {a .. '!', '!' .. a, a .. b, a .. 1}"
    assert call(body) == ["a!", "!a", "ab", "a1"]


def test_an_error_passes_through_pcall_as_itself() -> None:
    body = (
        "local err = errors.new('x') local ok, caught = pcall(error, err) return {ok, caught == err, caught:message()}"
    )
    assert call(body) == [False, True, "x"]


def test_the_stack_names_the_lines_of_the_handler_only() -> None:
    body = """
    local function make() local err = errors.new('x') return err end
    local err = make()
    local stack = errors.call_stack(err)
    return {err:stack(), stack.thread, stack.frames[1].source, stack.frames[1].line, stack.frames[2].line}
    """
    text, thread, source, first, second = call(body)
    assert text.startswith("x\nstack traceback:\n\thandler.lua:3: in ")
    assert "[C]" not in text
    assert "?" not in text
    assert (thread, source, first, second) == ("main", "handler.lua", 3, 4)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("errors.new{kind = 'Invalid'}", "message must be text, got nil"),
        ("errors.new(42 == 1)", "message must be text, got boolean"),
        ("errors.new{message = 'm', retryable = 'yes'}", "retryable must be"),
        ("errors.new{message = 'm', details = 'text'}", "details must be a table"),
        ("errors.new{message = 'm', kind = 3}", "kind must be text"),
        ("errors.wrap(nil, 'x')", "no error to wrap"),
        ("errors.call_stack('text')", "error expected, got string"),
        ("errors.new('m').kind()", "error expected, got nil"),
    ],
)
def test_mistakes_name_the_line(code: str, why: str) -> None:
    with pytest.raises(WippyQueueError, match=rf"^handler\.lua:2: .*{why}"):
        call(f"local x = {code} return x")
