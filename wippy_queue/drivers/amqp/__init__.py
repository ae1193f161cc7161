"""Queues on RabbitMQ: durable, shared by any number of processes and machines.

`link.py` is one connection on one I/O thread, opened again whenever it is lost; a driver has two, for publishing and
for the rest. `topology.py` says which queues there are at the broker, `delays.py` which of them hold what waits;
`wire.py` turns messages into what travels and back; `outbox.py` publishes with confirms, and `copier.py` what comes
back. `intake.py` consumes and acks on one channel; `subscription.py` is a consumer's share of a queue, `flusher.py` its
settlements. `graveyard.py` and `dropper.py` hand expired and pushed-out messages to the flow, `looker.py` counts,
`broker.py` puts it all together.
"""

from __future__ import annotations

from wippy_queue.driver import Capabilities, Driver, DriverKind
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpConsumerOptions, AmqpQueueOptions
from wippy_queue.errors import Unavailable
from wippy_queue.ids import EntryId


def _create(driver_id: EntryId, config: AmqpConfig) -> Driver:
    try:
        import pika  # noqa: F401  # an extra
    except ImportError:
        raise Unavailable(
            f"driver {driver_id} needs the library pika; install it with: pip install 'wippy_queue[amqp]'",
            retryable=False,
        ) from None
    from wippy_queue.drivers.amqp.driver import AmqpDriver

    return AmqpDriver(driver_id, config)


KIND = DriverKind(
    kind="queue.driver.amqp",
    config=AmqpConfig,
    queue_options=AmqpQueueOptions,
    consumer_options=AmqpConsumerOptions,
    # RabbitMQ tells no one what is in the hands of others, and says of a message that comes again only that it does.
    # What is handed back comes next, but in the order of its handing back.
    capabilities=Capabilities(
        durable=True, shared=True, exact_attempts=False, release_at_head=False, exact_counts=False
    ),
    create=_create,
)
