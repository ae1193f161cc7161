"""Queues on Amazon SQS and what speaks its protocol.

`client.py` is all that knows boto3, and turns its errors into ours; `pool.py` has the few threads that make calls;
`batches.py` puts what many threads ask for into calls of ten; `messages.py` is how a message looks on the wire;
`queue.py` is a queue of the service; `subscription.py` polls, keeps messages invisible and settles them.
"""

from __future__ import annotations

from wippy_queue.driver import Capabilities, Driver, DriverKind
from wippy_queue.drivers.sqs.options import SqsConfig, SqsConsumerOptions, SqsQueueOptions
from wippy_queue.ids import EntryId


def _create(driver_id: EntryId, config: SqsConfig) -> Driver:
    from wippy_queue.drivers.sqs.driver import SqsDriver

    return SqsDriver(driver_id, config)


KIND = DriverKind(
    kind="queue.driver.sqs",
    config=SqsConfig,
    queue_options=SqsQueueOptions,
    consumer_options=SqsConsumerOptions,
    capabilities=Capabilities(
        durable=True,
        shared=True,
        ttl=False,
        priority=False,
        exact_attempts=False,  # every receive counts, also one that was handed back
        release_at_head=False,
        ordered=False,  # but for FIFO queues
        exact_counts=False,
        leases=True,
    ),
    create=_create,
)
