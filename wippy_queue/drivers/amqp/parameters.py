"""From a driver's configuration to the parameters of a connection."""

from __future__ import annotations

import os
import ssl
import tempfile
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pika
from pika import credentials, data

from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpTls
from wippy_queue.errors import Invalid
from wippy_queue.redact import redact_url

_PORT: Final = 5672
_TLS_PORT: Final = 5671


class _AmqPlain(credentials.PlainCredentials):
    """User and password as an AMQP table, for brokers that refuse PLAIN."""

    TYPE = "AMQPLAIN"

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        if self.TYPE not in _text(start.mechanisms).split():
            return None, None
        pieces: list[bytes] = []
        data.encode_table(pieces, {"LOGIN": self.username, "PASSWORD": self.password})
        return self.TYPE, b"".join(pieces)[4:]  # without the length of the table


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def connection_parameters(config: AmqpConfig, name: str) -> pika.ConnectionParameters:
    """Return what pika needs to know.

    Raises:
        Invalid: the url or the TLS block cannot be used.
    """
    shown = redact_url(config.url)
    try:
        url = urlsplit(config.url)
        port = url.port
    except ValueError:
        raise Invalid(f"url: {shown} is no url like amqp://user:password@host:5672/vhost") from None
    if url.query or url.fragment:
        raise Invalid(f"url: {shown}: settings belong into fields of the driver, not behind the url")
    encrypted = url.scheme == "amqps" or config.tls.enabled
    host = url.hostname or "localhost"
    mechanism: Any
    if config.auth_mechanism == "EXTERNAL":
        mechanism = credentials.ExternalCredentials()
    else:
        plain = credentials.PlainCredentials if config.auth_mechanism == "PLAIN" else _AmqPlain
        mechanism = plain(unquote(url.username or "guest"), unquote(url.password or "guest"))
    return pika.ConnectionParameters(
        host=host,
        port=port or (_TLS_PORT if encrypted else _PORT),
        virtual_host=config.vhost if config.vhost is not None else unquote(url.path.removeprefix("/")) or "/",
        credentials=mechanism,
        channel_max=config.channel_max,
        frame_max=config.frame_size,
        heartbeat=max(1, round(config.heartbeat)),
        ssl_options=_tls(config.tls, host) if encrypted else None,
        connection_attempts=1,
        retry_delay=0,
        socket_timeout=config.connection_timeout,
        stack_timeout=config.connection_timeout,
        client_properties={"connection_name": name, "product": "wippy_queue"},
        # What was sent and is not acknowledged shows a dead peer at once; heartbeats alone take twice their interval.
        tcp_options={"TCP_USER_TIMEOUT": round(config.heartbeat * 1000)},
    )


def _tls(tls: AmqpTls, host: str) -> pika.SSLOptions:
    try:
        context = ssl.create_default_context(cafile=tls.ca, cadata=_variable("ca_env", tls.ca_env))
        if tls.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert is not None and tls.key is not None:
            context.load_cert_chain(tls.cert, tls.key)
        elif tls.cert or tls.cert_env:
            _load_chain(context, tls)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise Invalid(f"tls: the certificates cannot be used: {error}") from error
    return pika.SSLOptions(context, tls.server_name or host)


def _load_chain(context: ssl.SSLContext, tls: AmqpTls) -> None:
    """Load a certificate and a key of which at least one is text: the ssl module reads files alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # readable for this user alone
        for path, name, variable in ((tls.cert, "cert_env", tls.cert_env), (tls.key, "key_env", tls.key_env)):
            if path is not None:
                with open(path, encoding="ascii") as source:  # noqa: PTH123  # a Path adds nothing
                    file.write(source.read() + "\n")
            else:
                file.write(f"{_variable(name, variable)}\n")
        file.flush()
        context.load_cert_chain(file.name)


def _variable(name: str, variable: str | None) -> str | None:
    if variable is None:
        return None
    try:
        return os.environ[variable]
    except KeyError:
        raise Invalid(f"tls.{name}: the environment has no variable {variable}") from None
