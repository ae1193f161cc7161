"""Which queues there are at the broker for one queue of ours, and what they are declared with.

``tasks``           the queue itself
``tasks.due``       consumed beside it, before it: what was handed back, whatever the limit of ``tasks`` says
``tasks.delay.500`` what waits for half a second, then goes to ``tasks``; it vanishes by itself. Where ``max_length`` is
                    set it is ``tasks.due.delay.500``, and leads there, for what comes from it to a full queue is lost
``tasks.dropped``   what has expired or was pushed out, on its way to the flow; there once something can be dropped
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import attrs
from pika.channel import Channel

from wippy_queue.drivers.amqp.link import Steps
from wippy_queue.drivers.amqp.options import MAX_PERIOD, AmqpConfig, AmqpQueueOptions, options_of
from wippy_queue.errors import Conflict, Invalid, WippyQueueError
from wippy_queue.queues import Queue

_SPARE_MS: Final = 60_000  # for which a delay queue outlives its last message, that of dropped ones its queue
_LONGEST_NAME: Final = 255 - len(".due.delay.4294967295")  # bytes

_OPTION_OF: Final = {
    "x-message-ttl": "message_ttl",
    "x-expires": "queue_expiry",
    "x-max-length": "max_length",
    "x-overflow": "overflow",
    "x-max-priority": "max_priority",
    "x-queue-type": "queue_type",
    "durable": "durable",
    "auto_delete": "auto_delete",
    "exclusive": "exclusive",
}
_MISMATCH: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue '(?P<queue>.+?)'(?: in vhost .*)?:"
    r" received (?P<ours>.+?) but current is (?P<theirs>.+?)(?: \(406\))?$"
)
_VALUE: Final = re.compile(r"^(?:the value )?'(?P<value>.*?)'(?: of type .*)?$")


@attrs.frozen(eq=False)
class Declared:
    """A queue that was declared on this driver."""

    queue: Queue
    options: AmqpQueueOptions
    message_ttl: float | None  # seconds; of the queue
    expiry: float | None
    as_it_is: tuple[str, ...] = ()  # the queues of it that differ at the broker, and are used all the same

    @classmethod
    def of(cls, queue: Queue, config: AmqpConfig) -> Declared:
        if len(queue.name.encode()) > _LONGEST_NAME or queue.name.startswith("amq."):
            raise Invalid(
                f"queue {queue.id}: RabbitMQ cannot have a queue of the name {queue.name!r}; choose a queue_name of at"
                f" most {_LONGEST_NAME} bytes that does not begin with 'amq.'"
            )
        options = options_of(queue)
        ttl = options.message_ttl if options.message_ttl is not None else config.default_queue_ttl
        expiry = options.queue_expiry if options.queue_expiry is not None else config.default_queue_expiry
        return cls(queue, options, ttl, expiry)

    @property
    def name(self) -> str:
        return self.queue.name

    @property
    def due(self) -> str:
        """The queue for what was handed back: it is consumed first, has no limit, and is empty most of the time."""
        return f"{self.name}.due"

    @property
    def back(self) -> str:
        """Where messages go that are tried again: to the tail, where that is certain to admit them."""
        return self.due if self.options.max_length else self.name

    @property
    def consumed(self) -> tuple[str, ...]:
        return (self.due, self.name)

    @property
    def dropped(self) -> str:
        return f"{self.name}.dropped"

    @property
    def pushes_out(self) -> bool:
        """Whether the broker makes room by itself."""
        return bool(self.options.max_length) and self.options.overflow == "drop_oldest"

    @property
    def vanishes(self) -> bool:
        """Whether the broker may delete it by itself."""
        return self.options.auto_delete or self.options.exclusive or self.expiry is not None

    @property
    def drops(self) -> bool:
        """Whether its dropped messages are to be consumed although nobody gave one a time to live.

        Where the queue expires so does the one of its dropped messages, which has to be in use for as long.
        """
        return self.message_ttl is not None or self.pushes_out or self.expiry is not None

    @property
    def max_attempts(self) -> float:
        """After how many attempts the flow gives a message up."""
        queue = self.queue
        return queue.dead_letter.max_attempts if queue.dead_letter else queue.retry.max_attempts or math.inf

    def arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = self._common()
        if self.message_ttl is not None:
            arguments["x-message-ttl"] = round(self.message_ttl * 1000)
        if self.options.max_length:
            arguments["x-max-length"] = self.options.max_length
            arguments["x-overflow"] = "drop-head" if self.pushes_out else "reject-publish"
        return arguments

    def _common(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self.options.queue_type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dropped,
        }
        if self.options.max_priority is not None:
            arguments["x-max-priority"] = self.options.max_priority
        if self.expiry is not None:
            arguments["x-expires"] = round(self.expiry * 1000)
        return arguments

    def declare(self, channel: Channel) -> Steps[None]:
        """Declare the queue and what belongs to it."""
        for name, arguments in self.declared():
            yield self._declaration(channel, name, arguments, passive=name in self.as_it_is)

    def declared(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return the queues that are always there, and their arguments."""
        return ((self.name, self.arguments()), (self.due, self._common()))

    def declare_dropped(self, channel: Channel) -> Steps[None]:
        arguments: dict[str, Any] = {"x-queue-type": "classic"}
        if self.expiry is not None:
            arguments["x-expires"] = round(self.expiry * 1000) + _SPARE_MS
        yield self._declaration(channel, self.dropped, arguments)

    def declare_delay(self, channel: Channel, ms: int) -> Steps[int]:
        """Declare the queue in which messages wait; return how many do."""
        arguments = {
            "x-queue-type": "classic",
            "x-message-ttl": ms,
            "x-expires": ms + _SPARE_MS,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.back,
        }
        answer: Any = yield lambda callback: channel.queue_declare(
            self.delay_name(ms), durable=True, arguments=arguments, callback=callback
        )
        return int(answer.method.message_count)

    def delay_name(self, ms: int) -> str:
        return f"{self.back}.delay.{ms}"

    def _declaration(
        self, channel: Channel, name: str, arguments: dict[str, Any], *, passive: bool = False
    ) -> Callable[..., object]:
        options = self.options
        return lambda callback: channel.queue_declare(
            name,
            passive=passive,
            durable=options.durable,
            exclusive=options.exclusive,
            auto_delete=options.auto_delete,
            arguments=arguments,
            callback=callback,
        )

    def mismatch(self, error: WippyQueueError) -> WippyQueueError:
        """Return what the broker says about a queue that is there with other arguments, in the words of the options."""
        found = _MISMATCH.search(error.message)
        if found is None:
            return error
        name = found["name"]
        option = _OPTION_OF.get(name)
        ours, theirs = _value(found["ours"]), _value(found["theirs"])
        what = f"{name} is {theirs} there and {ours} here{f' (option {option})' if option else ''}"
        return Conflict(
            f"queue {self.queue.id}: RabbitMQ has a queue {found['queue']!r} with other arguments: {what}; delete it"
            " there, make the options the same, or set on_mismatch: use_existing",
            details={"name": found["queue"], "argument": name, "ours": ours, "theirs": theirs},
        )


def _value(text: str) -> str:
    found = _VALUE.match(text.strip())
    return found["value"] if found else "not set" if text.strip() == "none" else text.strip()


def tier(delay: float) -> int:
    """Return the milliseconds that a message waits which is to wait ``delay`` seconds: two digits, rounded up.

    Each number is a queue of its own, for messages in one queue expire in its order alone.
    """
    ms = max(1, math.ceil(round(delay * 1000, 3)))
    step: int = 10 ** max(0, len(str(ms)) - 2)
    return min(-(-ms // step) * step, round(MAX_PERIOD * 1000))
