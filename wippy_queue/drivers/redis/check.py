"""What is checked when a driver starts: that the server is there, is new enough, and does not throw messages away."""

from __future__ import annotations

import logging
import time
from typing import Final

from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.transport import Transport
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.errors import Invalid, PermissionDenied, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.redact import redact_url

_log = logging.getLogger(__name__)

_OLDEST: Final = (7, 0)  # the first whose scripts may say what they do when the memory is full


def check(transport: Transport, driver_id: EntryId, config: RedisConfig) -> None:
    """Ask the server once. Raises Unavailable, PermissionDenied or Invalid, which name the driver and the server."""
    where = f"driver {driver_id}: Redis at {_address(config)}"
    deadline = time.monotonic() + config.connection_timeout
    try:
        transport.command("PING", deadline=deadline)
        server, memory = _info(transport, "server", deadline), _info(transport, "memory", deadline)
    except Trouble as error:
        raise Unavailable(f"{where} cannot be reached: {error}") from None
    except PermissionDenied as error:
        raise PermissionDenied(f"{where}: {error}") from None
    except WippyQueueError as error:
        raise Unavailable(f"{where}: {error}") from None
    version = server.get("redis_version", "")
    if version and tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        raise Invalid(f"{where} is of version {version}; the driver needs Redis 7.0 or newer, or Valkey")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Invalid(
            f"{where} may throw messages away when its memory is full: its maxmemory-policy is {policy};"
            " set maxmemory-policy to noeviction, or use a server of its own for queues"
        )


def _info(transport: Transport, section: str, deadline: float) -> dict[str, str]:
    try:
        reply = transport.command("INFO", section, deadline=deadline)
    except PermissionDenied as error:
        fields = {"error": str(error)}
        _log.warning(
            "Redis does not say its version and maxmemory-policy; see that it is noeviction", extra={"fields": fields}
        )
        return {}
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _address(config: RedisConfig) -> str:
    if config.sentinel is not None:
        return f"master {config.sentinel.master} of the sentinels {', '.join(config.sentinel.hosts)}"
    if config.cluster and not isinstance(config.cluster, bool):
        return f"cluster {', '.join(config.cluster)}"
    return redact_url(config.url)
