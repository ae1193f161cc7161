"""What YAML may say of an SQS driver, its queues and its consumers."""

from __future__ import annotations

from typing import Protocol

import attrs

from wippy_queue.options import duration, reference
from wippy_queue.queues import Queue

LONGEST_VISIBILITY = 43_200.0  # seconds, 12 hours: what SQS hides a message for at most, in all, from its receive on
LONGEST_DELAY = 900.0  # seconds
_RETENTION = {"minimum": 60.0, "maximum": 1_209_600.0}  # seconds


class AwsConfig(Protocol):
    """A ``config.aws`` entry, as the engine puts it in the place of its id."""

    @property
    def region(self) -> str | None: ...
    @property
    def access_key_id(self) -> str | None: ...
    @property
    def secret_access_key(self) -> str | None: ...
    @property
    def session_token(self) -> str | None: ...


@attrs.frozen(kw_only=True)
class SqsConfig:
    """Amazon SQS, or an endpoint that speaks its protocol; what is not given comes from AWS's default chain."""

    config: AwsConfig | None = attrs.field(default=None, metadata=reference("config.aws"))
    endpoint: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.matches_re(r"https?://\S+"))
    )
    # What queues are made with that do not say it themselves; queues that are there already keep what they have.
    message_retention_period: float = duration(345_600.0, **_RETENTION)
    default_delay_seconds: float = duration(0.0, maximum=LONGEST_DELAY)
    visibility_timeout: float = duration(30.0, minimum=1.0, maximum=LONGEST_VISIBILITY)
    wait_time: float = duration(10.0, maximum=20.0)  # of a long poll
    use_fips: bool = False
    use_dual_stack: bool = False
    disable_message_checksum_validation: bool = False

    def __attrs_post_init__(self) -> None:
        if self.endpoint is not None and (self.use_fips or self.use_dual_stack):
            raise ValueError("use_fips and use_dual_stack choose one of AWS's own endpoints; remove them, or endpoint")


@attrs.frozen(kw_only=True)
class SqsQueueOptions:
    """What a queue on SQS may be told; None: what the driver says."""

    fifo: bool = False
    message_retention_period: float | None = duration(None, **_RETENTION)
    visibility_timeout: float | None = duration(None, minimum=1.0, maximum=LONGEST_VISIBILITY)
    delay_seconds: float | None = duration(None, maximum=LONGEST_DELAY)


@attrs.frozen(kw_only=True)
class SqsConsumerOptions:
    """A consumer of an SQS queue has no options."""


def options_of(queue: Queue) -> SqsQueueOptions:
    return queue.options if isinstance(queue.options, SqsQueueOptions) else SqsQueueOptions()
