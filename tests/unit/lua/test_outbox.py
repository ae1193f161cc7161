"""What handlers publish to a queue that takes it at once goes to Python together, and none of it is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from tests.unit.lua.support import Published, make_delivery, make_function, make_host, make_worker
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Kind, Unavailable
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.lua.limits import HookMode
from wippy_queue.message import Encoding

HANDLER = """
local queue = require("queue")
return function(body)
    for _ = 1, body.times or 1 do
        local ok, err = queue.publish(body.queue or "app:tasks", body.text or body.n, body.headers)
        if not ok then return nil, err end
    end
    if body.info then assert(queue.info("app:tasks")) end
    if body.ack then assert(queue.message():ack()) end
    if body.fail then error("failed") end
    if body.loop then while true do end end
    if body.hoard then local hoard = {} while true do hoard[#hoard + 1] = #hoard end end
end
"""


@attrs.define
class Posts(Published):
    """Remembers how many messages came together, too."""

    sizes: list[int] = attrs.field(factory=list)

    def post(self, queue_id: str, bodies: Sequence[bytes], encoding: Encoding) -> None:
        super().post(queue_id, bodies, encoding)
        self.sizes.append(len(bodies))

    @property
    def bodies(self) -> list[bytes]:
        return [message[1] for message in self.messages]


def handle(
    posts: Posts,
    *bodies: str,
    hook_mode: HookMode = "async",
    timeout: float | None = None,
    worker: WorkerContext | None = None,
    alone: bool = False,
) -> Sequence[Outcome]:
    """Handle them up to the first that fails, in one crossing; a watchdog may part it, above all on a busy machine."""
    host = make_host(posts, may_wait=lambda _: False, hook_mode=hook_mode)
    function = make_function(HANDLER, modules=("queue",), host=host, timeout=timeout, memory_limit=4 << 20)
    session = function.open(worker or make_worker())
    left = [make_delivery(body.encode()) for body in bodies]
    outcomes: list[Outcome] = []
    try:
        while left and all(outcome.ok for outcome in outcomes):
            found = session.handle(left, alone=alone)
            outcomes += found
            del left[: len(found)]
        return outcomes
    finally:
        session.close()


def test_what_a_batch_publishes_goes_together_and_in_order() -> None:
    posts = Posts()
    assert handle(posts, '{"n": 1}', '{"n": 2}', '{"n": 3}', alone=True) == [ACK] * 3
    assert posts.bodies == [b"1", b"2", b"3"]
    assert posts.sizes == [3]


def test_no_more_than_64_wait_and_no_more_than_64_kib() -> None:
    posts = Posts()
    assert handle(posts, '{"n": 1, "times": 150}') == [ACK]
    assert posts.sizes == [64, 64, 22]
    posts = Posts()
    assert handle(posts, f'{{"times": 5, "text": "{"x" * 30_000}"}}') == [ACK]
    assert posts.sizes == [2, 2, 1]


def test_another_queue_or_headers_do_not_overtake() -> None:
    posts = Posts()
    packed, headed = '{"n": 2, "queue": "app:packed"}', '{"n": 3, "headers": {"kind": "late"}}'
    assert handle(posts, '{"n": 1}', packed, '{"n": 1}', headed, '{"n": 4}', alone=True) == [ACK] * 5
    assert posts.bodies == [b"1", b"\x02", b"1", b"3", b"4"]
    assert posts.messages[3][3] == {"kind": "late"}


def test_a_handler_that_asks_python_for_something_finds_it_published() -> None:
    posts, seen = Posts(), []

    def settle(delivery: Delivery, outcome: Outcome) -> bool:
        seen.append(posts.bodies)
        return delivery.claim()

    handle(posts, '{"n": 1, "ack": true}', worker=make_worker(settle))
    assert seen == [[b"1"]]
    handle(posts, '{"n": 2}', '{"n": 3, "info": true}', '{"n": 4}', alone=True)
    assert posts.sizes == [1, 2, 1]  # the last one was parted from a call that may wait


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize("end", ["fail", "loop", "hoard"])
def test_what_was_published_is_there_however_the_handler_ends(end: str, hook_mode: HookMode) -> None:
    posts = Posts()
    outcomes = handle(posts, '{"n": 1}', f'{{"n": 2, "{end}": true}}', '{"n": 3}', hook_mode=hook_mode, timeout=1.5)
    assert posts.bodies == [b"1", b"2"]
    assert outcomes[0] == ACK
    assert len(outcomes) == 2
    assert outcomes[1].error is not None


@pytest.mark.parametrize("more", ["", ', "info": true', ', "times": 65'])
def test_a_message_whose_publish_fails_after_all_fails_and_those_behind_it_stay(more: str) -> None:
    posts = Posts()
    assert handle(posts, '{"times": 0}', '{"times": 0}') == [ACK] * 2
    posts.error = Unavailable("the driver has stopped")
    outcomes = handle(posts, '{"times": 0}', f'{{"n": 2{more}}}', '{"n": 3}')
    assert outcomes[0] == ACK
    assert len(outcomes) == 2
    assert outcomes[1].error is not None
    assert outcomes[1].error.kind is Kind.UNAVAILABLE
    assert posts.messages == []
