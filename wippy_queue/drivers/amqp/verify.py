"""Whether RabbitMQ would take the queues as they are declared, found out without declaring one that is not there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

from pika.channel import Channel

from wippy_queue.drivers.amqp.link import Link, Steps
from wippy_queue.drivers.amqp.options import AmqpConfig
from wippy_queue.drivers.amqp.parameters import connection_parameters
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.errors import Conflict, NotFound, Problem, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue

_ANSWER: Final = 10.0  # seconds
_GOODBYE: Final = 3.0  # seconds


def verify(driver_id: EntryId, config: AmqpConfig, queues: Sequence[Queue]) -> list[Problem]:
    """Return what stands against the queues. Raises Unavailable where the broker cannot be reached or refuses us."""
    link = Link(
        f"{driver_id}-verifying",
        connection_parameters(config, f"{config.connection_name or driver_id} (verifying)"),
        delay=config.reconnect_delay,
        max_delay=config.reconnect_max_delay,
        on_up=lambda _: None,
    )
    link.start()
    try:
        link.wait_up(config.connection_timeout)
        return [problem for queue in queues for problem in _problems(link, queue, config)]
    finally:
        link.begin_stop()
        link.finish_stop(time.monotonic() + _GOODBYE)


def _problems(link: Link, queue: Queue, config: AmqpConfig) -> list[Problem]:
    try:
        declared = Declared.of(queue, config)
        for name, arguments in declared.declared():
            with contextlib.suppress(NotFound):  # it will be made
                _ask(link, declared, name, arguments)
    except WippyQueueError as error:
        return [Problem(str(error), entry=queue.id)]
    return []


def _ask(link: Link, declared: Declared, name: str, arguments: dict[str, Any]) -> None:
    options = declared.options

    def steps(channel: Channel) -> Steps[None]:
        yield lambda callback: channel.queue_declare(name, passive=True, callback=callback)
        # It is there, so that this changes nothing: the broker compares, and closes the channel where they differ.
        yield lambda callback: channel.queue_declare(
            name,
            durable=options.durable,
            exclusive=options.exclusive,
            auto_delete=options.auto_delete,
            arguments=arguments,
            callback=callback,
        )

    try:
        link.request(f"queue {declared.queue.id}", steps, _ANSWER)
    except Conflict as error:
        mismatch = declared.mismatch(error)
        if mismatch is error or options.on_mismatch == "fail":
            raise mismatch from None
