"""Declaring, publishing, and whether a message arrives as it was sent."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from wippy_queue.driver import Driver
from wippy_queue.errors import NotFound, Unavailable
from wippy_queue.message import Encoding, HeaderValue, Message
from wippy_queue.testing.conformance.harness import Harness, ids, message, numbered

_HEADERS: dict[str, HeaderValue] = {
    "text": "plain",
    "empty": "",
    "unicode": "grüße 🐇 \n\t\"quoted\" 'too' \\",
    "number in text": "9",
    "integer": 9,
    "negative": -1,
    "beyond floats": 2**53 + 1,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "whole float": 9.0,
    "float": 0.1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "yes": True,
    "no": False,
    "correlation_id": "c-1",
    "amqp.delivery_mode": 1,
}


class Publishing(Harness):
    def test_declaring_a_queue_twice_keeps_its_messages(self, driver: Driver) -> None:
        """Every start of an engine declares its queues again."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        driver.declare(queue)
        self.publish(driver, queue, "b")
        assert set(ids(self.drained(driver, queue, 2))) == {"a", "b"}

    def test_two_queues_do_not_mix(self, driver: Driver) -> None:
        one, other = self.declared(driver, "one"), self.declared(driver, "other")
        self.publish(driver, one, "a")
        self.publish(driver, other, "b")
        assert ids(self.drained(driver, one, 1)) == ["a"]
        assert ids(self.drained(driver, other, 1)) == ["b"]

    def test_a_queue_that_was_never_declared_is_not_found(self, driver: Driver) -> None:
        """A message to nowhere must not be accepted, and a consumer of nothing must not wait for ever."""
        queue = self.queue()
        with pytest.raises(NotFound):
            driver.publish(queue, [message("a")], self.patience)
        with pytest.raises(NotFound):
            driver.subscribe(queue, 1)

    def test_a_published_message_can_be_received(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_a_batch_arrives_whole(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(250))
        assert sorted(ids(self.drained(driver, queue, 250))) == numbered(250)

    def test_publishing_nothing_does_nothing(self, driver: Driver) -> None:
        queue = self.declared(driver)
        driver.publish(queue, [], self.patience)
        self.drained(driver, queue, 0)

    def test_messages_come_in_the_order_in_which_they_were_published(self, driver: Driver) -> None:
        self.need("ordered")
        queue = self.declared(driver)
        for start in range(0, 30, 10):
            self.publish(driver, queue, *numbered(30)[start : start + 10])
        self.publish(driver, queue, "last")
        assert ids(self.drained(driver, queue, 31)) == [*numbered(30), "last"]

    def test_headers_keep_their_values_and_types(self, driver: Driver) -> None:
        """9 comes back as 9, not as 9.0 or "9", and True not as 1."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a", headers=_HEADERS)
        (delivery,) = self.drained(driver, queue, 1)
        received = delivery.message.headers
        assert dict(received) == _HEADERS
        assert {key: type(value) for key, value in received.items()} == {k: type(v) for k, v in _HEADERS.items()}

    def test_a_message_without_headers_has_none(self, driver: Driver) -> None:
        """What a backend adds of its own does not leak into the application."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        (delivery,) = self.drained(driver, queue, 1)
        assert dict(delivery.message.headers) == {}

    @pytest.mark.parametrize("message_id", ["1", "with space", "quo\"te's", "ünï-🐇", "a/b:c.d*#", "x" * 200])
    def test_an_id_of_any_text_comes_back(self, driver: Driver, message_id: str) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, message_id)
        assert ids(self.drained(driver, queue, 1)) == [message_id]

    @pytest.mark.parametrize(
        ("encoding", "body"),
        [
            ("json", '{"text":"ünï","list":[1,2.5,null]}'.encode()),
            ("msgpack", b"\x82\xa1a\x01\xa1b\xc4\x02\x00\xff"),
            ("binary", bytes(range(256))),
            ("binary", b"\x00"),
            ("binary", b""),
        ],
        ids=["json", "msgpack", "all-byte-values", "nul", "no-bytes"],
    )
    def test_a_body_of_any_encoding_comes_back(self, driver: Driver, encoding: Encoding, body: bytes) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, message("a", body, encoding=encoding))
        (delivery,) = self.drained(driver, queue, 1)
        assert (delivery.message.body, delivery.message.encoding) == (body, encoding)

    def test_a_body_of_a_mebibyte_comes_back(self, driver: Driver) -> None:
        body = (bytes(range(256)) * 4096)[: self.largest_body]
        queue = self.declared(driver)
        self.publish(driver, queue, message("a", body, encoding="binary"))
        (delivery,) = self.drained(driver, queue, 1)
        assert delivery.message.body == body

    def test_a_message_keeps_its_timestamp_and_starts_without_attempts(self, driver: Driver) -> None:
        """The timestamp is the publisher's, not that of the backend."""
        then = time.time() - 3600.123
        queue = self.declared(driver)
        self.publish(driver, queue, "a", timestamp=then)
        (delivery,) = self.drained(driver, queue, 1)
        assert delivery.message.timestamp == pytest.approx(then, abs=0.001, rel=0)
        assert delivery.message.attempts == 0

    def test_a_message_keeps_its_priority_and_the_time_at_which_it_expires(self, driver: Driver) -> None:
        self.need("priority", "ttl")
        soon = time.time() + 3600.123
        queue = self.declared(driver)
        self.publish(driver, queue, "a", priority=7, expires_at=soon)
        (delivery,) = self.drained(driver, queue, 1)
        assert delivery.message.priority == 7
        assert delivery.message.expires_at == pytest.approx(soon, abs=0.002, rel=0)

    def test_a_repeated_id_is_what_the_capabilities_say(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        self.publish(driver, queue, "a")
        copies = 1 if self.kind.capabilities.idempotent_publish else 2
        assert ids(self.drained(driver, queue, copies)) == ["a"] * copies

    def test_publishing_from_many_threads_loses_and_repeats_nothing(self, driver: Driver) -> None:
        queue = self.declared(driver)
        wanted = [[f"{thread}-{number:02}" for number in range(25)] for thread in range(4)]
        start = threading.Barrier(len(wanted))

        def work(mine: list[str]) -> None:
            start.wait(self.patience)
            for message_id in mine:
                self.publish(driver, queue, message_id)

        for call in [self.background(partial(work, mine)) for mine in wanted]:
            call.result()
        received = ids(self.drained(driver, queue, 100))
        assert sorted(received) == sorted(message_id for mine in wanted for message_id in mine)
        if self.kind.capabilities.ordered:
            for mine in wanted:
                assert [message_id for message_id in received if message_id in set(mine)] == mine

    def test_publishing_before_the_start_is_unavailable(self) -> None:
        """Not NotFound: the queue is declared in the application, only its driver does not run yet."""
        with pytest.raises(Unavailable) as caught:
            self.make_driver().publish(self.queue(), [message("a")], self.patience)
        assert caught.value.retryable

    def test_publishing_after_the_stop_is_unavailable(self, driver: Driver) -> None:
        queue = self.declared(driver)
        driver.stop(self.patience)
        with pytest.raises(Unavailable) as caught:
            driver.publish(queue, [message("a")], self.patience)
        assert caught.value.retryable

    def test_a_message_is_a_new_value_each_time_and_never_changed(self, driver: Driver) -> None:
        """The publisher may keep the message that it published and use it again."""
        original = message("a", headers={"n": 1})
        before = Message(**{name: getattr(original, name) for name in ("id", "body", "headers", "timestamp")})
        queue = self.declared(driver)
        self.publish(driver, queue, original)
        self.drained(driver, queue, 1)
        assert original == before
