"""One connection to RabbitMQ on one I/O thread, opened again whenever it is lost."""

from __future__ import annotations

import concurrent.futures
import logging
import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar, cast

import pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from wippy_queue.drivers.amqp.connection import Connection
from wippy_queue.drivers.amqp.quiet import quiet_pika
from wippy_queue.drivers.amqp.trouble import channel_trouble, connection_trouble, words
from wippy_queue.errors import Timeout, Unavailable, WippyQueueError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# What is done on a channel, one request after the other: each `yield` gives a call that takes `callback=`, and gets
# what the callback got.
Steps = Generator[Callable[..., object], Any, _T]
Done = Callable[[Any, WippyQueueError | None], None]  # the result, or an error

_ABORT_WAIT: Final = 1.0  # seconds for the thread to let go of a connection


class Link:
    """A connection that comes back; everything of pika happens on its thread.

    Thread safety: ``start``, ``wait_up``, ``request``, ``call`` and the stops from any thread; ``perform``, ``use``,
    ``later`` and ``settled`` on the link's own thread, as are the callbacks.
    """

    def __init__(
        self,
        name: str,
        parameters: pika.ConnectionParameters,
        *,
        delay: float,
        max_delay: float,
        on_up: Callable[[Connection], None],
    ) -> None:
        self.name = name
        self._parameters = parameters
        self.address = f"{parameters.host}:{parameters.port}{_vhost(parameters.virtual_host)}"
        self._delay = delay
        self._max_delay = max_delay
        self._on_up = on_up
        self._failures = 0  # opens in a row that came to nothing; the link's thread alone
        self._loop = IOLoop()
        self._connection: Connection | None = None
        self._ended = False  # the thread has nothing more to do
        self._changed = threading.Condition()  # guards what follows
        self._up = False
        self._stopping = False
        self._error: WippyQueueError | None = None  # why it is not up
        self._down_since = time.monotonic()
        self._blocked: str | None = None  # why the broker takes no messages
        self._asked: set[concurrent.futures.Future[Any]] = set()  # what somebody waits for
        self._thread = threading.Thread(target=self._run_quietly, name=name, daemon=True)

    # from any thread

    def start(self) -> None:
        self._thread.start()

    def begin_stop(self) -> None:
        """Let nobody wait any longer and close the connection."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.call(self._close)

    def finish_stop(self, deadline: float) -> None:
        """Wait for the end of the thread; from ``deadline`` (monotonic seconds) on, the broker is not waited for."""
        if self._thread.ident is None:
            return  # it never began
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.call(self._abort)
            self._thread.join(_ABORT_WAIT)

    def wait_up(self, timeout: float, *, patient: bool = True) -> None:
        """Wait until the connection is open, also beyond a failed try if ``patient``.

        Raises:
            Unavailable: it is not after ``timeout`` seconds; not retryable where the broker refuses us.
        """

        def decided() -> bool:
            hopeless = self._error is not None and (not patient or self._error.retryable is False)
            return self._up or self._stopping or hopeless

        with self._changed:
            self._changed.wait_for(decided, max(0.0, timeout))
            if not self._up:
                raise self._why_down()

    def _why_down(self) -> WippyQueueError:
        if self._stopping:
            return Unavailable(f"{self.name} was stopped; start the engine before you use its queues")
        if self._error is None:
            return Unavailable(f"RabbitMQ at {self.address} has not answered yet")
        return type(self._error)(self._error.message, retryable=self._error.retryable)

    def why_down(self) -> WippyQueueError | None:
        """Return why the connection is not open; None while it is."""
        with self._changed:
            return None if self._up else self._why_down()

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no messages on this connection, in its own words; None while it does."""
        with self._changed:
            return self._blocked

    @property
    def down_for(self) -> float:
        """Seconds since the connection was lost, 0 while it is open."""
        with self._changed:
            return 0.0 if self._up else time.monotonic() - self._down_since

    def call(self, work: Callable[[], None]) -> None:
        """Have the link's thread do something soon, also while there is no connection."""
        self._loop.add_callback_threadsafe(work)

    def request(self, what: str, steps: Callable[[Channel], Steps[_T]], timeout: float) -> _T:
        """Do something on a channel of its own and return its result; not on the link's thread.

        Raises:
            WippyQueueError: the broker refuses, cannot be reached, or has not answered after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        self.wait_up(timeout)
        left = max(0.0, deadline - time.monotonic())
        return cast(_T, self.ask(what, lambda done: self.perform(what, steps, done), left))

    def ask(self, what: str, begin: Callable[[Done], None], timeout: float) -> Any:
        """Have the link's thread begin something, and return what it is done with; not on the link's thread."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def done(result: Any, error: WippyQueueError | None) -> None:
            with self._changed:
                mine = future in self._asked
                self._asked.discard(future)
            if mine and error is None:
                future.set_result(result)
            elif mine:
                future.set_exception(error)

        with self._changed:
            if self._stopping:
                raise self._why_down()
            self._asked.add(future)
        self.call(lambda: begin(done))
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            with self._changed:
                self._asked.discard(future)
            raise Timeout(f"{what}: RabbitMQ at {self.address} has not answered within {timeout:g} s") from None

    # on the link's thread

    def perform(
        self,
        what: str,
        steps: Callable[[Channel], Steps[_T]],
        done: Done,
    ) -> None:
        """Do something on a channel of its own; ``done`` gets the result or an error."""
        connection = self._connection
        if connection is None or not connection.is_open:
            done(None, self.why_down() or Unavailable(f"the connection to RabbitMQ at {self.address} was lost"))
            return
        finished = False

        def finish(result: Any, error: WippyQueueError | None) -> None:
            nonlocal finished
            if not finished:
                finished = True
                if channel.is_open:
                    channel.close()
                done(result, error)

        channel = connection.channel(on_open_callback=lambda channel: drive(channel, steps(channel), finish))
        channel.add_on_close_callback(lambda _, reason: finish(None, channel_trouble(reason, what)))

    def use(self, work: Callable[[Connection], None]) -> None:
        """Do something with the connection, if there is one."""
        if self._connection is not None and self._connection.is_open:
            work(self._connection)

    def after_read(self, work: Callable[[], None]) -> None:
        """Do something when all that the connection has just read is worked through; at once where it reads nothing."""
        if self._connection is None:
            work()
        else:
            self._connection.after_read(work)

    def later(self, delay: float, work: Callable[[], None]) -> None:
        self._loop.call_later(delay, work)

    def settled(self) -> None:
        """The connection does its work: when it is lost, the next try comes soon."""
        self._failures = 0

    # the thread

    def _run_quietly(self) -> None:
        with quiet_pika():
            self._run()

    def _run(self) -> None:
        self._connect()
        while not self._ended:
            try:
                self._loop.start()
            except Exception:
                if self._stopping:  # pika asserts when it is closed amid its handshake
                    _log.debug("the I/O of a RabbitMQ connection failed while it was closed", exc_info=True)
                else:
                    _log.exception("the I/O of a RabbitMQ connection failed; it is opened again")
                connection, self._connection = self._connection, None
                if connection is not None:
                    self._abandon(connection)
                self._lost(Unavailable("an error of ours ended the connection"))
        self._loop.close()
        with self._changed:
            asked, self._asked = self._asked, set()
        for future in asked:
            future.set_exception(self._why_down())

    def _end(self) -> None:
        self._ended = True
        self._loop.stop()

    def _abandon(self, connection: Connection) -> None:
        try:
            connection.close()
        except Exception:
            _log.debug("a broken connection could not be closed", exc_info=True)

    def _connect(self) -> None:
        if self._stopping:
            self._end()
            return
        self._connection = Connection(
            self._parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
            custom_ioloop=self._loop,
        )

    def _opened(self, connection: Connection) -> None:
        if self._stopping:
            connection.close()
            return
        connection.read_more()
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        with self._changed:
            self._up = True
            self._blocked = None
            self._changed.notify_all()
        self._on_up(connection)

    def _closed(self, connection: Connection, error: BaseException) -> None:
        if connection is self._connection:
            self._connection = None
            self._lost(connection_trouble(error, self.address))

    def _lost(self, error: WippyQueueError) -> None:
        with self._changed:
            was_up, self._up = self._up, False
            self._blocked = None
            self._error = error
            if was_up:
                self._down_since = time.monotonic()
            stopping = self._stopping
            self._changed.notify_all()
        if stopping:
            self._end()
            return
        if was_up or self._failures == 0:
            fields = {"connection": self.name, "broker": self.address, "error": str(error)}
            _log.warning("the connection to RabbitMQ is gone; it is opened again", extra={"fields": fields})
        delay = min(self._max_delay, self._delay * 2 ** min(self._failures, 30))
        self._failures += 1
        self.later(delay * random.uniform(0.5, 1.0), self._connect)

    def _close(self) -> None:
        connection = self._connection
        if connection is None or connection.is_closed:
            self._end()
        elif not connection.is_closing:
            self._abandon(connection)

    def _abort(self) -> None:
        """The broker does not answer to the close: let go of the socket."""
        try:
            if self._connection is not None:
                self._connection.abort()
                return
        except Exception:
            _log.debug("a connection could not be aborted", exc_info=True)
        self._end()

    def _on_blocked(self, _: Any, frame: Any) -> None:
        reason = frame.method.reason
        with self._changed:
            self._blocked = reason if isinstance(reason, str) else reason.decode(errors="replace")
        _log.warning(
            "RabbitMQ takes no messages for now", extra={"fields": {"broker": self.address, "reason": self._blocked}}
        )

    def _on_unblocked(self, *_: Any) -> None:
        with self._changed:
            self._blocked = None


def drive(channel: Channel, steps: Steps[_T], finish: Done) -> None:
    """Run the steps on an open channel, each when the answer to the one before has come."""

    def step(*answer: Any) -> None:
        if not channel.is_open:
            return  # whoever watches the channel has been told
        try:
            call = steps.send(answer[-1] if answer else None)
            call(callback=step)
        except StopIteration as end:
            finish(end.value, None)
        except WippyQueueError as error:
            finish(None, error)
        except Exception as error:
            finish(None, Unavailable(f"the request to RabbitMQ failed: {words(error)}"))

    step()


def _vhost(name: str) -> str:
    return name if name == "/" else f"/{name}"
