"""What YAML may say of an AMQP driver, its queues and its consumers."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from wippy_queue.options import duration, size, whole
from wippy_queue.queues import Queue

MAX_PERIOD: Final = 4_294_000.0  # seconds, about 49 days: RabbitMQ counts times to live in 32 bits of milliseconds


@attrs.frozen(kw_only=True)
class AmqpTls:
    """How the connection is encrypted; an ``amqps://`` url alone verifies the broker with the system's authorities."""

    enabled: bool = False
    server_name: str | None = None  # the name that the broker's certificate must bear; default: the host of the url
    cert: str | None = None  # files in PEM format
    key: str | None = None
    ca: str | None = None
    cert_env: str | None = None  # names of environment variables that hold the PEM text itself
    key_env: str | None = None
    ca_env: str | None = None
    insecure_skip_verify: bool = False

    def __attrs_post_init__(self) -> None:
        for name in ("cert", "key", "ca"):
            if getattr(self, name) is not None and getattr(self, f"{name}_env") is not None:
                raise ValueError(f"'{name}' and '{name}_env' say the same; leave one out")
        if bool(self.cert or self.cert_env) != bool(self.key or self.key_env):
            raise ValueError("a client certificate needs both 'cert' and 'key' (or 'cert_env' and 'key_env')")


@attrs.frozen(kw_only=True)
class AmqpConfig:
    """A driver for RabbitMQ, AMQP 0-9-1."""

    url: str = attrs.field(
        default="amqp://guest:guest@localhost:5672/",
        validator=attrs.validators.matches_re(r"amqps?://\S+"),
        repr=False,
    )
    vhost: str | None = None  # wins over that of the url
    connection_name: str | None = None  # shown by RabbitMQ's tools; default: the driver's id
    auth_mechanism: Literal["PLAIN", "AMQPLAIN", "EXTERNAL"] = "PLAIN"
    heartbeat: float = duration(20.0, minimum=1.0, maximum=3600.0)
    connection_timeout: float = duration(10.0, minimum=0.1, maximum=300.0)
    reconnect_delay: float = duration(1.0, minimum=0.01)
    reconnect_max_delay: float = duration(30.0, minimum=0.01)
    default_message_ttl: float | None = duration(None, maximum=MAX_PERIOD)  # of messages published without a ttl
    default_queue_ttl: float | None = duration(None, maximum=MAX_PERIOD)  # of queues without a message_ttl
    default_queue_expiry: float | None = duration(None, minimum=0.001, maximum=MAX_PERIOD)
    prefetch_count: int | None = whole(None, minimum=1, maximum=65_535)  # no consumer's window is larger
    frame_size: int = size(131_072, minimum=4096, maximum=131_072)
    channel_max: int = whole(2047, minimum=8, maximum=65_535)
    tls: AmqpTls = attrs.field(factory=AmqpTls)

    def __attrs_post_init__(self) -> None:
        if self.reconnect_delay > self.reconnect_max_delay:
            raise ValueError("'reconnect_delay' must not be longer than 'reconnect_max_delay'")


@attrs.frozen(kw_only=True)
class AmqpQueueOptions:
    """What a queue on RabbitMQ may be told; all but ``on_mismatch`` is fixed when the queue is first declared."""

    durable: bool = True
    auto_delete: bool = False  # deleted when its last consumer leaves
    exclusive: bool = False  # only for this process, gone with its connection
    message_ttl: float | None = duration(None, maximum=MAX_PERIOD)
    queue_expiry: float | None = duration(None, minimum=0.001, maximum=MAX_PERIOD)
    max_length: int = whole(0)  # ready messages; 0: no limit
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    max_priority: int | None = whole(None, minimum=1, maximum=9)
    queue_type: Literal["classic", "quorum"] = "classic"
    on_mismatch: Literal["fail", "use_existing"] = "fail"

    def __attrs_post_init__(self) -> None:
        if self.queue_type == "quorum":
            for name, fits in (
                ("durable", self.durable),
                ("auto_delete", not self.auto_delete),
                ("exclusive", not self.exclusive),
                ("max_priority", self.max_priority is None),
            ):
                if not fits:
                    value = getattr(self, name)
                    raise ValueError(
                        f"a quorum queue cannot have {name}: {value}; leave it out, or use a classic queue"
                    )
            if self.max_length and self.overflow != "drop_oldest":
                raise ValueError(
                    f"RabbitMQ lets more than max_length into a quorum queue with overflow: {self.overflow}; set"
                    " overflow: drop_oldest, or use a classic queue"
                )
        if self.max_priority is not None and self.max_length and self.overflow == "drop_oldest":
            raise ValueError(
                "RabbitMQ would drop the messages of the highest priority first; leave out max_priority,"
                " or choose another overflow"
            )


@attrs.frozen(kw_only=True)
class AmqpConsumerOptions:
    """What a consumer of a queue on RabbitMQ may be told."""

    consumer_tag: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.max_len(200))
    )
    exclusive: bool = False  # no other consumer of the queue beside this one
    no_local: bool = False
    no_wait: bool = False  # start without waiting for the broker's consent

    def __attrs_post_init__(self) -> None:
        if self.no_local:
            raise ValueError("RabbitMQ does not implement no_local; leave it out")


def options_of(queue: Queue) -> AmqpQueueOptions:
    return queue.options if isinstance(queue.options, AmqpQueueOptions) else AmqpQueueOptions()
