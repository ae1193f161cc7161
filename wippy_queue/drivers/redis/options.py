"""What YAML may say of a redis driver, its queues and its consumers."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs

from wippy_queue.options import duration, whole
from wippy_queue.queues import Queue


def _check_url(_instance: object, attribute: Any, value: str) -> None:
    try:
        parts = urlsplit(value)
        known = parts.scheme == "unix" or (
            parts.scheme in ("redis", "rediss") and re.fullmatch(r"/?|/\d+", parts.path, re.ASCII) is not None
        )
        _ = parts.port
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"'{attribute.name}' must be redis://host:port/db, rediss:// for TLS, or unix://path")


def _check_prefix(_instance: object, attribute: Any, value: str) -> None:
    if "{" in value or "}" in value:
        raise ValueError(f"'{attribute.name}' must not contain braces: they mark the name of the queue in its keys")


def split_host(text: str, port: int) -> tuple[str, int]:
    """Return host and port of ``host``, ``host:port`` or ``[::1]:port``. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.query or parts.username is not None:
        raise ValueError(text)
    return parts.hostname, parts.port or port


def _check_hosts(_instance: object, attribute: Any, value: Any) -> None:
    try:
        if not value or isinstance(value, str):
            raise ValueError
        for host in value:
            split_host(host, 0)
    except (TypeError, ValueError):
        raise ValueError(f"'{attribute.name}' must be a list of host:port") from None


def _check_cluster(_instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, bool):
        try:
            _check_hosts(None, attribute, value)
        except ValueError:
            raise ValueError(f"'{attribute.name}' must be true, false or a list of host:port") from None


@attrs.frozen(kw_only=True)
class TlsConfig:
    """How the server is recognised, and how we are; a ``rediss://`` url alone checks it against the system's CAs."""

    enabled: bool = True
    ca: str | None = None  # file of the CA, PEM
    cert: str | None = None  # file of our certificate, PEM
    key: str | None = attrs.field(default=None, repr=False)  # file of its key, PEM
    insecure_skip_verify: bool = False


@attrs.frozen(kw_only=True)
class SentinelConfig:
    """Who knows which server is the master now."""

    hosts: tuple[str, ...] = attrs.field(validator=_check_hosts)  # host:port; port 26379 when left out
    master: str = attrs.field(validator=attrs.validators.min_len(1))
    username: str | None = None  # of the sentinels; the url's are the server's
    password: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RedisConfig:
    """A Redis 7 or Valkey server, a sentinel group or a cluster."""

    url: str = attrs.field(default="redis://localhost:6379/0", validator=_check_url, repr=False)
    key_prefix: str = attrs.field(default="wq:", validator=_check_prefix)
    lease: float = duration(30.0, minimum=0.1)  # seconds after which a process that is gone loses its messages
    connection_timeout: float = duration(5.0, minimum=0.1)  # seconds for connecting, and for an answer
    reconnect_delay: float = duration(0.1)  # seconds before the second try; it doubles, up to
    reconnect_max_delay: float = duration(5.0, minimum=0.001)  # seconds
    tls: TlsConfig | None = None
    sentinel: SentinelConfig | None = None
    cluster: Any = attrs.field(default=False, validator=_check_cluster)  # true, or a list of host:port to begin with

    def __attrs_post_init__(self) -> None:
        if self.sentinel is not None and self.cluster:
            raise ValueError("'sentinel' and 'cluster' exclude each other; leave one out")


@attrs.frozen(kw_only=True)
class RedisQueueOptions:
    """What a queue on the redis driver may be told."""

    max_length: int = whole(0)  # 0: bounded by the server's memory alone
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    message_ttl: float | None = duration(None)  # seconds


@attrs.frozen(kw_only=True)
class RedisConsumerOptions:
    """A consumer of a redis queue has no options."""


def options_of(queue: Queue) -> RedisQueueOptions:
    return queue.options if isinstance(queue.options, RedisQueueOptions) else RedisQueueOptions()
