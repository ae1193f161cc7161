"""The Lua module `hash`."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from wippy_queue.errors import Kind, WippyQueueError

from .support import call

DATA = [b"", b"data", bytes(range(256)) * 20]


def run(code: str, *args: object) -> object:
    return call(code, *args, modules=("hash",))


def as_bytes(value: object) -> bytes:
    assert isinstance(value, (str, bytes))
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("data", DATA)
def test_digests_are_those_of_every_other_implementation(name: str, data: bytes) -> None:
    assert run(f"return hash.{name}(...)", data) == hashlib.new(name, data).hexdigest()
    assert as_bytes(run(f"return hash.{name}((...), true)", data)) == hashlib.new(name, data).digest()
    assert run(f"return hash.hmac_{name}(...)", data, b"k\xff") == hmac.digest(b"k\xff", data, name).hex()
    assert as_bytes(run(f"local d, k = ... return hash.hmac_{name}(d, k, true)", data, b"k")) == hmac.digest(
        b"k", data, name
    )


def fnv1(data: bytes, value: int, prime: int, bits: int) -> int:
    for byte in data:
        value = value * prime % 2**bits ^ byte
    return value


@pytest.mark.parametrize("data", [*DATA, b"foobar"])
def test_fnv_is_fnv_1(data: bytes) -> None:
    assert run("return hash.fnv32(...)", data) == fnv1(data, 0x811C9DC5, 0x01000193, 32)
    assert (
        run("return ('%016x'):format(hash.fnv64(...))", data)
        == f"{fnv1(data, 0xCBF29CE484222325, 0x100000001B3, 64):016x}"
    )


def test_fnv_gives_the_published_values() -> None:
    """From the test vectors of FNV's authors."""
    assert run("return hash.fnv32('foobar')") == 0x31F0B262
    assert run("return ('%x'):format(hash.fnv64('foobar'))") == "340d8765a4dda9c2"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("hash.md5(5)", "hash.md5: expected a string, found number"),
        ("hash.sha256()", "hash.sha256: expected a string, found nil"),
        ("hash.sha1('x', 'hex')", "hash.sha1: expected true or false for raw, found string"),
        ("hash.hmac_sha512('x')", "hash.hmac_sha512: expected a string as key, found nil"),
        ("hash.hmac_md5({}, 'k')", "hash.hmac_md5: expected a string, found table"),
        ("hash.fnv32({})", "hash.fnv32: expected a string, found table"),
        ("hash.fnv64()", "hash.fnv64: expected a string, found nil"),
    ],
)
def test_mistakes_are_invalid(code: str, message: str) -> None:
    with pytest.raises(WippyQueueError) as caught:
        run(f"return {code}")
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message == message
