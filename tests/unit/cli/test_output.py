"""What the commands show of a message."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import message
from wippy_queue.cli.output import body_of


@pytest.mark.parametrize(
    ("body", "encoding", "shown"),
    [
        (b'{"n": 1}', "json", {"n": 1}),
        (b"{", "json", "<1 bytes, json>"),
        (b"\x81\xa1n\x01", "msgpack", {"n": 1}),
        (b"\xc4\x01\x00", "msgpack", "<3 bytes, msgpack>"),
        (b"\xff\x00", "binary", "<2 bytes, binary>"),
    ],
)
def test_a_body_that_json_has_no_form_for_is_told_by_its_size(body: bytes, encoding: Any, shown: object) -> None:
    assert body_of(message("one", body, encoding=encoding)) == shown
