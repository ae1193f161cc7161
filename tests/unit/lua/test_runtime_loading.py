"""How functions, modules and libraries are loaded, and what they are told when they cannot be."""

from __future__ import annotations

import threading

import pytest

from tests.unit.lua.support import call, make_delivery, make_function, make_host, make_worker
from wippy_queue.errors import Invalid, NotFound, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.lua.host import Host, Source


def library(name: str, text: str, **imports: str) -> Source:
    return Source(
        id=EntryId(f"app:{name}"),
        text=text,
        name=f"{name}.lua",
        imports={alias: EntryId(target) for alias, target in imports.items()},
    )


def host_with(*libraries: Source) -> Host:
    return make_host(libraries={source.id: source for source in libraries})


def imports(**aliases: str) -> dict[str, EntryId]:
    return {alias: EntryId(target) for alias, target in aliases.items()}


def test_the_chunk_may_return_the_handler_itself() -> None:
    assert make_function("return function() return 1 end", method="whatever").call([]) == 1


def test_the_chunk_may_return_a_table_that_holds_the_method() -> None:
    assert make_function("return {other = 1, run = function(x) return x end}", method="run").call([5]) == 5


@pytest.mark.parametrize(
    ("text", "method", "why"),
    [
        ("return {\n  go = function() end,\n  stop = function() end,\n}", "run",
         r"handler\.lua:4: the table that the chunk returns has no function 'run' \(it has: go, stop\)"),
        ("return {}", "run", r"handler\.lua:1: .*\(it has: none\)"),
        ("return {run = function() end}", None, r"handler\.lua:1: .*must name one of its functions as `method`"),
        ("local x = 1", None, r"handler\.lua:1: expected the chunk to return a function.*it returns nothing"),
        ("return 42", None, r"it returns a number"),
        ("local x = 1\nlocal y = = 2", None, r"handler\.lua:2: unexpected symbol near '='"),
        ("local t = nil\nreturn t.x", None, r"handler\.lua:2: attempt to index a nil value \(local 't'\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_handler_is_told_with_file_and_line(text: str, method: str | None, why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        make_function(text, method=method).open(make_worker())
    assert caught.value.message.startswith("app:handler: handler.lua:")


def test_check_compiles_and_runs_nothing() -> None:
    chunks = make_host().chunks
    assert chunks.check("error('this must not run')", "handler.lua") is None
    fault = chunks.check("local x = 1\nreturn function( end", "handler.lua")
    assert fault is not None
    assert fault.startswith("handler.lua:2: ")


def test_require_gives_only_what_is_declared() -> None:
    with pytest.raises(WippyQueueError) as caught:
        make_function("return function() require('queue') end", modules=("json", "logger")).call([])
    assert (
        caught.value.message == "handler.lua:1: module 'queue' is not declared for app:handler (declared: json, logger)"
    )
    with pytest.raises(WippyQueueError, match=r"declared: none"):
        call("require('json')")


def test_a_module_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match="there is no module 'nonsense'"):
        make_function("return function() end", modules=("nonsense",)).open(make_worker())


def test_a_library_has_an_environment_of_its_own() -> None:
    host = host_with(library("util", "value = 7 return {get = function() return value end}"))
    text = "local util = require('u') return function() return {util.get(), value == nil} end"
    assert make_function(text, host=host, imports=imports(u="app:util")).call([]) == [7, True]


def test_a_library_is_loaded_once_whoever_imports_it() -> None:
    host = host_with(
        library("shared", "local n = 0 return {next = function() n = n + 1 return n end}"),
        library("a", "local s = require('s') return {next = s.next}", s="app:shared"),
    )
    text = (
        "local a, s = require('a'), require('s') return function() return {a.next(), s.next(), require('s') == s} end"
    )
    assert make_function(text, host=host, imports=imports(a="app:a", s="app:shared")).call([]) == [1, 2, True]


def test_functions_do_not_share_what_a_library_keeps() -> None:
    host = host_with(library("counter", "local n = 0 return {next = function() n = n + 1 return n end}"))
    text = "local c = require('c') return function() return c.next() end"
    first = make_function(text, host=host, imports=imports(c="app:counter"))
    second = make_function(text, host=host, imports=imports(c="app:counter"))
    assert [first.call([]), first.call([]), second.call([])] == [1, 2, 1]


def test_a_library_sees_its_own_modules_only() -> None:
    host = host_with(library("util", "return {get = function() local json = require('json') end}"))
    text = "local json, util = require('json'), require('u') return function() return util.get() end"
    with pytest.raises(WippyQueueError, match=r"^util\.lua:1: module 'json' is not declared for app:util"):
        make_function(text, host=host, modules=("json",), imports=imports(u="app:util")).call([])


def test_an_import_cycle_is_printed() -> None:
    host = host_with(library("a", "return require('b')", b="app:b"), library("b", "return require('a')", a="app:a"))
    with pytest.raises(WippyQueueError, match="import cycle: app:a -> app:b -> app:a"):
        make_function("return require('a')", host=host, imports=imports(a="app:a")).open(make_worker())


def test_a_missing_library_is_named_with_its_importer() -> None:
    with pytest.raises(NotFound, match="app:handler: imports: u: there is no library app:util"):
        make_function("return function() end", imports=imports(u="app:util")).open(make_worker())


def test_a_mistake_in_a_library_names_its_file() -> None:
    host = host_with(library("util", "local x =\n= 1"))
    with pytest.raises(WippyQueueError, match=r"util\.lua:2: unexpected symbol"):
        make_function("return require('u')", host=host, imports=imports(u="app:util")).open(make_worker())


def test_modules_written_in_python_take_and_give_plain_data() -> None:
    sent = []

    def send(*arguments: object) -> dict[str, object]:
        sent.append(arguments)
        return {"ok": True, "ids": [1, None, 3]}

    host = make_host(modules={"mail": {"send": send}})
    result = call("return mail.send('a@b', {n = 1.5, list = {1, 2}}, nil, true)", modules=("mail",), host=host)
    assert sent == [("a@b", {"n": 1.5, "list": [1, 2]}, None, True)]
    assert result == {"ok": True, "ids": [1, None, 3]}


def test_what_a_python_module_raises_is_an_error_value_in_lua() -> None:
    def refuse() -> None:
        raise NotFound("no such mailbox", details={"box": "x"})

    def crash() -> None:
        raise ZeroDivisionError("division by zero")

    host = make_host(modules={"mail": {"refuse": refuse, "crash": crash}})
    body = """
    local nothing, err = mail.refuse()
    local _, crash = mail.crash()
    return {
      nothing == nil, err:kind(), err:message(), err:retryable(), err:details().box,
      crash:kind(), crash:message(), type(err),
    }
    """
    assert call(body, modules=("mail",), host=host) == [
        True, "NotFound", "no such mailbox", False, "x", "Internal", "ZeroDivisionError: division by zero", "userdata",
    ]  # fmt: skip


def test_keyboard_interrupt_in_a_python_function_reaches_the_caller() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    function = make_function(
        "local t = require('t') return function() pcall(t.interrupt) while true do end end",
        modules=("t",),
        host=make_host(modules={"t": {"interrupt": interrupt}}),
    )
    with pytest.raises(KeyboardInterrupt):
        function.call([])


def test_many_threads_with_a_runtime_each() -> None:
    function = make_function("n = 0 return function(x) n = n + x return nil, tostring(n) end")
    problems: list[object] = []

    def work() -> None:
        session = function.open(make_worker())
        for expected in range(1, 200):
            error = session.handle([make_delivery(b"1")])[0].error
            if error is None or error.message != str(expected):
                problems.append(error)
        session.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
