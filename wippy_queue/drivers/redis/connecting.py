"""From the configuration to connections: a server, a sentinel group or a cluster."""

from __future__ import annotations

import threading
import time
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import redis.cluster
import redis.connection
import redis.sentinel
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from wippy_queue.drivers.redis.options import RedisConfig, SentinelConfig, TlsConfig, split_host
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId

_REFRESH: Final = 0.2  # seconds between two looks at a cluster that changes
untyped: Any = redis  # half of its functions have no types

_SENTINEL_PATIENCE: Final = 1.0  # seconds
_ANY: Final = b""  # the name of the only server


class Servers(Protocol):
    """Where a key lives, and how to get there. Every method may be called from any thread."""

    def place(self, key: bytes) -> bytes:
        """Return the name of the server that holds the key; it may have to ask the cluster."""

    def connect(self, place: bytes) -> Any:
        """Return a new connection to it, not yet connected."""

    def anywhere(self) -> bytes:
        """Return the name of a server that hears what is published."""

    def refresh(self) -> None:
        """Look again, for something has moved."""

    def close(self) -> None: ...


def servers(driver_id: EntryId, config: RedisConfig) -> Servers:
    """Return the servers of the configuration; nothing is connected yet. Raises Invalid."""
    try:
        options = {"client_name": f"wippy_queue:{driver_id}", **_options(config)}
        if config.cluster:
            return _Cluster(config, options)
        if config.sentinel is not None:
            one = _One(_sentinel_pool(config, config.sentinel, options))
        else:
            one = _One(ConnectionPool(**options))
        one.connect(_ANY)  # made, not connected: an option of the url that there is not shows now
        return one
    except (ValueError, TypeError) as error:
        raise Invalid(f"driver {driver_id}: `url` cannot be used: {error}") from None


def _common(config: RedisConfig) -> dict[str, Any]:
    """Return what holds for every connection. Retries are ours: the library would send again what may be done."""
    return {
        "socket_timeout": config.connection_timeout,
        "socket_connect_timeout": config.connection_timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": False,
    }


def _quick(config: RedisConfig) -> dict[str, Any]:
    """Sentinels are asked one after the other, so none may take long."""
    seconds = min(config.connection_timeout, _SENTINEL_PATIENCE)
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def _options(config: RedisConfig) -> dict[str, Any]:
    options: dict[str, Any] = {**untyped.connection.parse_url(config.url), **_common(config)}
    if options.get("connection_class") is UnixDomainSocketConnection:
        options.pop("socket_keepalive")
    tls = config.tls
    if tls is None or not tls.enabled:
        return options
    return {**options, "connection_class": SSLConnection, **_tls(tls)}


def _tls(tls: TlsConfig) -> dict[str, Any]:
    return {
        "ssl_ca_certs": tls.ca,
        "ssl_certfile": tls.cert,
        "ssl_keyfile": tls.key,
        "ssl_cert_reqs": "none" if tls.insecure_skip_verify else "required",
        "ssl_check_hostname": not tls.insecure_skip_verify,
    }


class _One:
    """One server, or the master of a sentinel group: then each new connection asks who that is."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def place(self, key: bytes) -> bytes:
        return _ANY

    def connect(self, place: bytes) -> Any:
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def anywhere(self) -> bytes:
        return _ANY

    def refresh(self) -> None: ...

    def close(self) -> None: ...


def _sentinel_pool(config: RedisConfig, group: SentinelConfig, options: dict[str, Any]) -> Any:
    tls = options.pop("connection_class", None) is SSLConnection
    for name in ("host", "port"):  # who the master is, the sentinels say
        options.pop(name, None)
    login = {"username": group.username, "password": group.password}
    secure = {"ssl": True, **(_tls(config.tls) if config.tls is not None else {})} if tls else {}
    sentinel = untyped.sentinel.Sentinel(
        [split_host(host, 26379) for host in group.hosts],
        sentinel_kwargs={**_common(config), **_quick(config), **secure, **login},
    )
    kind = SentinelManagedSSLConnection if tls else SentinelManagedConnection
    return untyped.sentinel.SentinelConnectionPool(group.master, sentinel, connection_class=kind, **options)


class _Cluster:
    """Nodes, each with the keys of some queues."""

    def __init__(self, config: RedisConfig, options: dict[str, Any]) -> None:
        if options.get("db"):
            raise ValueError("a cluster has database 0 only")
        parts = urlsplit(config.url)
        hosts = config.cluster if not isinstance(config.cluster, bool) else [f"{parts.hostname}:{parts.port or 6379}"]
        self._nodes = [untyped.cluster.ClusterNode(*split_host(host, 6379)) for host in hosts]
        tls = options.pop("connection_class", None) is SSLConnection
        for name in ("host", "port", "db"):
            options.pop(name, None)
        if tls:
            options["ssl"] = True
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._refreshed = 0.0  # monotonic

    def _known(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = untyped.RedisCluster(startup_nodes=self._nodes, **self._options)
            return self._client

    def place(self, key: bytes) -> bytes:
        client = self._known()
        try:
            return self._name(client.get_node_from_key(key))
        except exceptions.SlotNotCoveredError as error:
            self.refresh()
            raise exceptions.ClusterDownError(str(error)) from error

    @staticmethod
    def _name(node: Any) -> bytes:
        name: str = node.name
        return name.encode()

    def connect(self, place: bytes) -> Any:
        client = self._known()
        node = client.get_node(node_name=place.decode())
        if node is None:
            raise exceptions.ConnectionError(f"node {place.decode()} has left the cluster")
        pool = client.get_redis_connection(node).connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def anywhere(self) -> bytes:
        return self._name(self._known().get_random_node())

    def refresh(self) -> None:
        with self._lock:
            client = self._client
            if client is None or time.monotonic() - self._refreshed < _REFRESH:
                return
            self._refreshed = time.monotonic()
        client.nodes_manager.initialize()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
