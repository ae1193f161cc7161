"""SQS without AWS: moto's server on a loopback port, in this process, over HTTP."""

from __future__ import annotations

import functools
import http.client
import logging
import threading
import time
from typing import Any

from botocore import session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import SQSBackend
from werkzeug.serving import BaseWSGIServer, make_server

from wippy_queue.drivers.sqs.options import SqsConfig
from wippy_queue.entries import AwsConfigEntry, Place
from wippy_queue.ids import EntryId

_POLL = 0.02  # seconds between two looks whether the server is to stop

SECOND = 0.2  # seconds that one second of a long poll takes here, so that who stops waits less for what is under way

_create_loader = functools.cache(session.create_loader)
_receiving = threading.Lock()
_receive = SQSBackend.receive_message


def _receive_one_at_a_time(self: SQSBackend, queue_name: str, count: int, wait: int, *rest: Any) -> Any:
    """Left alone, moto gives a message to two receives that come at the same time."""
    end = time.monotonic() + wait * SECOND
    while True:
        with _receiving:
            received = _receive(self, queue_name, count, 0, *rest)
        left = end - time.monotonic()
        if received or left <= 0:
            return received
        self.get_queue(queue_name).wait_for_messages(left)  # type: ignore[arg-type]  # any number of seconds will do


class MotoSqs:
    """A server that can go away and come back on its port; its queues live in this process, and so outlive that."""

    def __init__(self) -> None:
        # Reading the descriptions of AWS's services is nearly all the time that a client takes to be made.
        session.create_loader = _create_loader
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        SQSBackend.receive_message = _receive_one_at_a_time  # type: ignore[method-assign, assignment]
        # It counts the whole queue for each message that is received: nearly all the time that a receive takes.
        SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
        self._server: BaseWSGIServer | None = None
        self._port = 0
        self.start()

    def start(self) -> None:
        application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", self._port, application, threaded=True, request_handler=MotoRequestHandler
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            self._thread.join()

    def forget(self) -> None:
        """Lose every queue and message, as a restart of moto in a process of its own does."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"


def aws_config(**fields: Any) -> AwsConfigEntry:
    """Return credentials that are none."""
    return AwsConfigEntry(
        id=EntryId("test:aws"),
        meta={},
        place=Place(),
        **{"region": "eu-west-1", "access_key_id": "testing", "secret_access_key": "testing-secret", **fields},
    )


def sqs_config(endpoint: str, **fields: Any) -> SqsConfig:
    return SqsConfig(config=aws_config(), endpoint=endpoint, **{"wait_time": 1.0, **fields})
