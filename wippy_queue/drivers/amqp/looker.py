"""Looking at a queue from outside: numbers, what waits, whether it is idle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from pika import BasicProperties, spec
from pika.channel import Channel

from wippy_queue.drivers.amqp.delays import Delays
from wippy_queue.drivers.amqp.graveyard import Graveyard
from wippy_queue.drivers.amqp.intake import GivenBack, Intake
from wippy_queue.drivers.amqp.link import Done, Link, Steps
from wippy_queue.drivers.amqp.subscription import AmqpSubscription
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.drivers.amqp.wire import from_wire
from wippy_queue.errors import NotFound
from wippy_queue.message import Message
from wippy_queue.queues import QueueInfo

_ANSWER: Final = 10.0  # seconds for an answer of the broker
_PEEK: Final = 60.0  # the same for a look at many messages


class Looker:
    """Asks the broker, and adds what this process alone knows.

    Thread safety: every method may be called from any thread but the link's.
    """

    def __init__(
        self,
        link: Link,
        delays: Delays,
        graveyard: Graveyard,
        given_back: GivenBack,
        subscriptions: Callable[[], Iterable[AmqpSubscription]],
    ) -> None:
        self._consuming = link
        self._delays = delays
        self._graveyard = graveyard
        self._given_back = given_back
        self._subscriptions = subscriptions

    def _mine(self, declared: Declared) -> list[AmqpSubscription]:
        return [subscription for subscription in self._subscriptions() if subscription.declared.name == declared.name]

    def _count(self, declared: Declared, timeout: float) -> tuple[int, int, int]:
        """Return how many messages wait for their time, how many are ready, and how many consumers there are."""
        tiers = self._delays.live(declared)

        def steps(channel: Channel) -> Steps[tuple[int, int, int]]:
            delayed = 0  # first, for a message goes from here to there
            for ms in tiers:
                delayed += yield from declared.declare_delay(channel, ms)
            ready = consumers = 0
            for name in declared.consumed:
                answer = yield _passive(channel, name)
                ready += answer.method.message_count
                consumers = answer.method.consumer_count
            return delayed, ready, consumers

        return self._consuming.request(f"queue {declared.queue.id}", steps, timeout)

    def _count_or_nothing(self, declared: Declared) -> tuple[int, int, int]:
        """Count; a queue that RabbitMQ has deleted by itself, as it is to delete these, holds nothing."""
        try:
            return self._count(declared, _ANSWER)
        except NotFound:
            if not declared.vanishes:
                raise
            return 0, 0, 0

    def info(self, declared: Declared) -> QueueInfo:
        delayed, ready, consumers = self._count_or_nothing(declared)
        mine = self._mine(declared)
        held = sum(subscription.intake.holds for subscription in mine)
        alone = consumers == len(mine)  # nobody else has anything in hand
        return QueueInfo(
            message_count=ready + held + delayed,
            ready=ready,
            in_flight=held if alone else None,
            delayed=delayed if alone or delayed else None,
            consumer_count=consumers,
        )

    def peek(self, declared: Declared, limit: int) -> list[Message]:
        def steps(channel: Channel) -> Steps[list[Message]]:
            got: list[Callable[[Any], object]] = []
            channel.add_callback(lambda _: got[0](None), [spec.Basic.GetEmpty], one_shot=False)
            found: list[Message] = []
            for name in declared.consumed:
                while len(found) < limit:
                    answer = yield _get(channel, name, got)
                    if answer is None:
                        break
                    properties, body = answer
                    message = from_wire(properties, body, declared.queue).message
                    self._given_back.add(declared.name, message.id)
                    found.append(message)
            if found:
                channel.basic_nack(0, multiple=True, requeue=True)
            return found

        return self._consuming.request(f"queue {declared.queue.id}", steps, _PEEK)

    def purge(self, declared: Declared) -> int:
        tiers = self._delays.live(declared)

        def steps(channel: Channel) -> Steps[int]:
            count = 0
            for ms in tiers:
                yield from declared.declare_delay(channel, ms)  # purging a queue that is gone would close the channel
            for name in (*(declared.delay_name(ms) for ms in tiers), *declared.consumed):
                answer = yield lambda callback, name=name: channel.queue_purge(name, callback=callback)
                count += answer.method.message_count
            return count

        return self._consuming.request(f"queue {declared.queue.id}", steps, _ANSWER)

    def is_idle(self, declared: Declared, moves: Callable[[], int]) -> bool:
        """Return whether nothing waits and nothing is in our hands.

        Args:
            declared: the queue.
            moves: how often something went back to a queue; what goes back while we look may be overlooked.
        """
        before = moves()
        what = f"queue {declared.queue.id}"
        delayed, ready, _ = self._count_or_nothing(declared)
        if delayed or ready:
            return False
        intakes = [subscription.intake for subscription in self._mine(declared)]
        # What has left the queue may still be on its way to us.
        for intake in intakes:
            self._consuming.ask(what, partial(_synced, intake), _ANSWER)
            if intake.holds:
                return False
        if self._graveyard.holds(declared, _ANSWER):
            return False
        return moves() == before


def _synced(intake: Intake, done: Done) -> None:
    intake.sync(lambda error: done(None, error))


def _passive(channel: Channel, name: str) -> Callable[..., object]:
    return lambda callback: channel.queue_declare(name, passive=True, callback=callback)


def _get(channel: Channel, name: str, got: list[Callable[[Any], object]]) -> Callable[..., object]:
    """Ask for one message; the answer is its properties and body, or None."""

    def call(callback: Callable[[Any], object]) -> None:
        got[:] = [callback]

        def one(_: Channel, __: Any, properties: BasicProperties, body: bytes) -> None:
            callback((properties, body))

        channel.basic_get(name, one)

    return call
