"""The Lua module `json`: kinds of errors, and validation by JSON Schema. The codec has tests of its own."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import pytest

from wippy_queue import errors
from wippy_queue.errors import Kind, WippyQueueError
from wippy_queue.lua.handler import LuaFunction
from wippy_queue.lua.modules import json as json_module
from wippy_queue.patterns import Pattern

from .support import call, make_function


@functools.cache
def judge() -> LuaFunction:
    return make_function(
        """local json = require('json')
        return function(schema, text)
          local ok, err = json.validate_string(schema, text)
          return {ok = ok, message = err and err:message(), kind = err and err:kind()}
        end""",
        modules=("json",),
    )


def run(code: str, *args: Any) -> Any:
    return call(code, *args, modules=("json",))


def verdict(schema: Any, value: Any) -> str | None:
    """Validate a JSON value in Lua; return None, or why it fails."""
    result = judge().call((json.dumps(schema), json.dumps(value)))
    assert result["ok"] is (result.get("message") is None)
    assert result["ok"] or result["kind"] == "Invalid"
    message: str | None = result.get("message")
    return message


def test_the_handler_of_the_seed_may_decode_a_body_that_is_a_table_already() -> None:
    assert run("local t = {a = 1} return {json.decode(t) == t}") == [True]


def test_null_is_nil_without_an_error() -> None:
    assert run("local v, e = json.decode('null') return {v == nil, e == nil, json.encode(nil), json.encode()}") == [
        True,
        True,
        "null",
        "null",
    ]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("json.decode('')", Kind.INVALID, "json.decode: the text is empty"),
        ("json.decode(5)", Kind.INVALID, "json.decode: expected text, found number"),
        ("json.decode(nil)", Kind.INVALID, "json.decode: expected text, found nil"),
        ("json.decode('{')", Kind.INTERNAL, "json.decode: expected a key in quotes at byte 2"),
        ("json.encode({1, nil, 3})", Kind.INTERNAL, "json.encode: value: an array has gaps"),
        ("json.encode({a = {1, x = 2}})", Kind.INTERNAL, "json.encode: value.a: a table has both"),
        ("json.encode({cb = print})", Kind.INTERNAL, "json.encode: value.cb: cannot encode a function"),
        ("json.encode({e = errors.new('x')})", Kind.INTERNAL, "json.encode: value.e: cannot encode an error"),
        ("json.encode((function() local t = {} t[1] = t return t end)())", Kind.INTERNAL, "contains itself"),
    ],
)
def test_errors_have_the_kinds_of_the_wippy_runtime(code: str, kind: Kind, message: str) -> None:
    with pytest.raises(WippyQueueError) as caught:
        run(f"return {code}")
    assert caught.value.kind is kind
    assert caught.value.retryable is False
    assert message in caught.value.message


def test_decoded_arrays_with_nulls_work_with_the_functions_of_table_in_the_sandbox() -> None:
    assert run(
        """local t = json.decode('[null, "a", null]')
        table.insert(t, 'b') table.insert(t, 1, 'c')
        local last, first = table.remove(t), table.remove(t, 1)
        return {#t, json.encode(t), last, first, select('#', table.unpack(t)), getmetatable(t) == nil}"""
    ) == [3, '[null,"a",null]', "b", "c", 3, True]


def test_handlers_may_give_decoded_tables_a_metatable_of_their_own() -> None:
    assert run(
        """local Order = {__index = {total = function(self) return 7 end}}
        local empty, holes = setmetatable(json.decode('{}'), Order), setmetatable(json.decode('[null, 1]'), Order)
        return {empty:total(), holes:total(), getmetatable(empty) == Order}"""
    ) == [7, 7, True]


# Schemas: what they take, and what they say of the rest.

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 3},
        "next": {"$ref": "#"},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "Ann", "age": 3, "tags": ["a", "b"], "next": {"name": "Bob"}}, None),
        ({"name": "한국어", "age": 3.0}, None),
        ({"name": ""}, "$.name: expected at least 1 characters"),
        ({"name": "Annabel"}, "$.name: expected at most 5 characters"),
        ({"age": 3}, '$: the member "name" is missing'),
        ({"name": None}, "$.name: expected string, found null"),
        ({"name": "Ann", "age": -1}, "$.age: expected at least 0"),
        ({"name": "Ann", "age": 1.5}, "$.age: expected integer, found number"),
        ({"name": "Ann", "tags": ["a", 1]}, "$.tags[1]: expected string, found integer"),
        ({"name": "Ann", "tags": ["a", "a"]}, "$.tags[1]: the item stands in the array twice"),
        ({"name": "Ann", "tags": ["a", "b", "c", "d"]}, "$.tags: expected at most 3 items"),
        ({"name": "Ann", "next": {"name": "Bob", "next": {}}}, '$.next.next: the member "name" is missing'),
        ({"name": "Ann", "odd key": 1}, '$["odd key"]: no such member is allowed'),
        ([], "$: expected object, found array"),
        (None, "$: expected object, found null"),
    ],
)
def test_a_value_is_judged_and_the_place_of_the_fault_is_named(value: Any, message: str | None) -> None:
    assert verdict(PERSON, value) == message


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, ["a", None], [1, {}]),
        ({"type": "number"}, [1, 1.5], ["1", True]),
        ({"type": "boolean"}, [True], [0, None]),
        ({"enum": ["a", None, {"x": [1]}]}, ["a", None, {"x": [1.0]}], ["b", {"x": [2]}, {}, {"x": [1], "y": 2}]),
        ({"const": None}, [None], [0, [], {}]),
        ({"const": {}}, [{}], [[], None]),
        ({"const": []}, [[]], [{}]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2, 1.1, "1"], [1, 3]),
        ({"multipleOf": 3}, [0, -9, 6.0, "x"], [1, 1.5]),
        ({"multipleOf": 0.01}, [0.07, 19.99, 4], [0.001]),
        ({"minItems": 1, "contains": {"const": 2}}, [[1, 2], "x"], [[], [1], [None]]),
        (
            {"uniqueItems": True},
            [[1, "1", True, None, [1], [2], {"a": 1}, {"a": 2}]],
            [[None, None], [[1], [1.0]], [{}, {}]],
        ),
        (
            {"prefixItems": [{"type": "string"}, True], "items": {"type": "integer"}},
            [["a"], ["a", None, 1]],
            [[1], ["a", 1, "b"]],
        ),
        ({"prefixItems": [True], "items": False}, [[1], []], [[1, 2]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}, []], [{}, {"a": 1, "b": 2}]),
        ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}], [{"abc": 1}]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}, {"b": 1}, {}], [{"a": 1}]),
        ({"additionalProperties": {"type": "integer"}, "properties": {"s": {}}}, [{"s": "x", "i": 1}], [{"i": "x"}]),
        ({"pattern": "b+c"}, ["abbcd", 5, None, ["x"]], ["abb", ""]),
        ({"pattern": "^(\\d{3}-)?[가-힣]{2,}$"}, ["010-한국", "한국"], ["010-한", "x한국", "한국\n"]),
        ({"pattern": ""}, ["", "a"], []),
        (
            {"patternProperties": {"^x-": {"type": "integer"}, "t$": {"minimum": 3}}},
            [{"x-t": 3, "y": 0}, "s"],
            [{"x-t": 2}],
        ),
        (
            {"patternProperties": {"^x-": {}}, "properties": {"a": {}}, "additionalProperties": {"type": "null"}},
            [{"x-b": 1, "a": 1, "c": None}],
            [{"c": 1}, {"ax-": 1}],
        ),
        ({"propertyNames": {"pattern": "^[a-z]+$"}}, [{"ab": 1}], [{"A": 1}]),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2], [0, 4]),
        ({"anyOf": [{"type": "string"}, {"minimum": 3, "type": "integer"}]}, ["a", 3], [2, None]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, [1, 3.5], [4, 2.5]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}}, ["ab", None], ["a", 1]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, [None], [1]),
        (
            {"definitions": {"n": {"items": {"$ref": "#/definitions/n"}, "type": "array"}}, "$ref": "#/definitions/n"},
            [[[], [[]]]],
            [[[], [1]]],
        ),
        ({"properties": {"a": {"type": "null"}}, "required": ["a"]}, [{"a": None}], [{}, {"a": 0}]),
        (True, [1, None], []),
        (False, [], [1, None]),
        ({}, [1, None], []),
    ],
)
def test_every_keyword_takes_the_good_and_refuses_the_bad(schema: Any, good: list[Any], bad: list[Any]) -> None:
    assert {json.dumps(value): verdict(schema, value) for value in good} == {json.dumps(value): None for value in good}
    assert [value for value in bad if verdict(schema, value) is None] == []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"typ": "object"}, 'schema: $: unknown keyword "typ"'),
        ({"properties": {"a": {"type": "objekt"}}}, 'schema: $.properties.a.type: unknown type "objekt"'),
        ({"properties": {"a": 5}}, "schema: $.properties.a: expected a schema, found integer"),
        ({"anyOf": []}, "schema: $.anyOf: expected a list of schemas"),
        ({"required": "name"}, "schema: $.required: expected a list of names"),
        ({"minLength": -1}, "schema: $.minLength: expected an integer from 0 on"),
        ({"minimum": "1"}, "schema: $.minimum: expected a number"),
        ({"multipleOf": 0}, "schema: $.multipleOf: expected a number above 0"),
        ({"enum": 5}, "schema: $.enum: expected a list of values"),
        ({"items": [{}]}, "schema: $.items: expected one schema; a list of them is prefixItems"),
        ({"$defs": {"x": {"nope": 1}}}, 'schema: $["$defs"].x: unknown keyword "nope"'),
        ({"$ref": "#/$defs/x"}, 'schema: $["$ref"]: there is no #/$defs/x in this schema'),
        ({"$ref": "https://example.com/x"}, 'schema: $["$ref"]: expected a place in this schema'),
        ({"then": {}}, "schema: $: `then` and `else` need an `if`"),
        ({"items": {"pattern": "(a"}}, "schema: $.items.pattern: bad pattern at character 2: a ( without a )"),
        (
            {"pattern": "(?=a)"},
            "schema: $.pattern: bad pattern at character 1: of the groups that begin with (? only (?:",
        ),
        ({"pattern": "a{1000}b{1000}"}, "schema: $.pattern: the pattern is too large"),
        ({"pattern": 5}, "schema: $.pattern: expected a pattern, as text"),
        ({"patternProperties": {"a**": {}}}, 'schema: $.patternProperties["a**"]: bad pattern at character 3'),
        ({"patternProperties": {"^a": 5}}, 'schema: $.patternProperties["^a"]: expected a schema, found integer'),
        ({"patternProperties": [{}]}, "schema: $.patternProperties: expected an object of schemas"),
        ({"$ref": "#"}, "a schema that refers to itself without end"),
    ],
)
def test_a_mistake_in_the_schema_is_told_and_never_passed_over(schema: Any, message: str) -> None:
    assert message in (verdict(schema, []) or "nothing")


@pytest.mark.parametrize(
    ("schema", "value", "place"),
    [
        ({"pattern": "a"}, "a" * 4097, "$"),
        ({"properties": {"n": {"pattern": "^(a|b)*$"}}}, {"n": "한" * 4097}, "$.n"),
        ({"not": {"pattern": "x"}}, "a" * 4097, "$"),
        ({"not": {"not": {"not": {"pattern": "x"}}}}, "a" * 4097, "$"),
        ({"anyOf": [{"pattern": "x"}, True]}, "a" * 4097, "$"),
        ({"oneOf": [{"pattern": "x"}, True]}, "a" * 4097, "$"),
        ({"contains": {"pattern": "x"}}, ["a" * 4097, "x"], "$[0]"),
        ({"if": {"pattern": "x"}, "else": True}, "a" * 4097, "$"),
        ({"items": {"if": {"not": {"pattern": "x"}}, "then": True}}, [0, "a" * 4097], "$[1]"),
    ],
)
def test_a_text_too_long_for_patterns_is_refused_wherever_the_pattern_stands(
    schema: Any, value: Any, place: str
) -> None:
    message = "no pattern can judge it: the text is longer than 4096 characters"
    assert verdict(schema, value) == f"{place}: {message}"


def test_a_name_too_long_for_patterns_is_refused() -> None:
    why = verdict({"patternProperties": {"x": {}}, "additionalProperties": True}, {"a" * 4097: 1})
    assert why is not None
    assert why.endswith("the name of the member: no pattern can judge it: the text is longer than 4096 characters")


def test_the_longest_text_is_judged_by_a_pattern_that_hangs_other_engines() -> None:
    assert verdict({"pattern": "^(a+)+$"}, "a" * 4095 + "b") == '$: expected text that matches the pattern "^(a+)+$"'


def test_a_refusal_is_forgotten_with_the_next_value() -> None:
    assert run(
        """local schema = {['not'] = {pattern = 'x'}}
        local long = json.validate(schema, ('a'):rep(5000))
        return {long, json.validate(schema, 'a'), (json.validate(schema, 'x'))}"""
    ) == [False, True, False]


def test_text_that_is_not_utf_8_is_refused_by_patterns() -> None:
    assert "no pattern can judge it: expected UTF-8 text" in run(
        "local _, err = json.validate({pattern = '.'}, 'a\\xff') return err:message()"
    )


def test_a_pattern_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def counted(text: str) -> Pattern:
        compiled.append(text)
        return Pattern(text)

    monkeypatch.setattr(json_module, "Pattern", counted)
    run(
        """for i = 1, 5 do
          assert(json.validate({pattern = 'a', maxLength = i}, 'a'))
          assert(json.validate({patternProperties = {b = {type = 'integer'}}}, {abc = i}))
        end"""
    )
    assert sorted(compiled) == ["a", "b"]


def test_the_costliest_search_ends_with_the_time_of_its_handler() -> None:
    function = make_function(
        """local json, text = require('json'), {}
        for i = 1, 4096 do text[i] = math.random(2) == 1 and 'a' or 'b' end
        return function() return json.validate({pattern = '[ab]*a[ab]{900}z'}, table.concat(text)) end""",
        modules=("json",),
    )
    started = time.monotonic()
    with pytest.raises(errors.Timeout):
        function.call((), 0.1)
    assert time.monotonic() - started < 1


def test_annotations_judge_nothing() -> None:
    schema = {"format": "email", "description": "d", "default": None, "examples": [1], "$id": "x", "$comment": "c"}
    assert verdict(schema, 5) is None


def test_a_table_may_be_schema_and_value_and_an_empty_one_is_array_and_object() -> None:
    assert run(
        """local object, array = {type = 'object', properties = {}}, {type = 'array'}
        return {json.validate(object, {}), json.validate(array, {}), json.validate(object, json.decode('{}')),
          (json.validate(array, json.decode('{}'))),
          json.validate({type = 'array', minItems = 2}, json.decode('[null, null]')),
          json.validate('{"type":"integer"}', 4),
          (json.validate({type = 'object'}, {1})), (json.validate({}, {1, x = 2})),
          (json.validate({type = 'string'}, print)), (json.validate({}, errors.new('x')))}"""
    ) == [True, True, True, False, True, True, False, False, False, True]


def test_a_value_whose_metatable_raises_is_judged_by_what_it_holds() -> None:
    assert run(
        """local trap = setmetatable({}, {__index = function() error('trap') end})
        return {(json.validate({required = {'a'}}, trap))}"""
    ) == [False]


def test_a_schema_that_changes_later_is_judged_anew() -> None:
    assert run(
        """local schema = {type = 'integer'}
        local before = json.validate(schema, 1)
        schema.type = 'string'
        return {before, (json.validate(schema, 1))}"""
    ) == [True, False]


def test_more_schemas_than_are_kept_do_no_harm() -> None:
    assert (
        run("local n = 0 for i = 1, 200 do if json.validate({minimum = i}, 100) then n = n + 1 end end return n") == 100
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("json.validate(5, 1)", "json.validate: schema: expected a table or JSON text, found number"),
        ("json.validate('{', 1)", "json.validate: schema: expected a key in quotes at byte 2"),
        ("json.validate({type = print}, 1)", "json.validate: schema: value.type: cannot encode a function"),
        ("json.validate_string({}, {})", "json.validate_string: expected text, found table"),
        ("json.validate_string({}, '[1')", "json.validate_string: expected ',' or ']' in an array at byte 3"),
        ("json.validate_string({}, '')", "json.validate_string: unexpected end of the text at byte 1"),
    ],
)
def test_what_cannot_be_validated_is_invalid(code: str, message: str) -> None:
    assert run(f"local ok, err = {code} return {{ok, err:kind(), err:message()}}") == [False, "Invalid", message]
