"""A queue of the service: its name there, its attributes, and the batches on their way to it."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wippy_queue.drivers.sqs import messages
from wippy_queue.drivers.sqs.batches import Batches, Item
from wippy_queue.drivers.sqs.options import LONGEST_DELAY, SqsConfig, SqsQueueOptions, options_of
from wippy_queue.drivers.sqs.pool import Pool
from wippy_queue.errors import Conflict, Invalid, NotFound, WippyQueueError
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

if TYPE_CHECKING:
    from wippy_queue.drivers.sqs.client import Client, Failures

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIFO: Final = ".fifo"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_NAME: Final = 80
_ID: Final = re.compile(r"""[\w!"#$%&'()*+,./:;<=>?@\[\\\]^`{|}~-]{1,128}""", re.ASCII)  # of groups and deduplication
_DEFAULT_GROUP: Final = "default"
_WIDTH: Final = 4  # calls at a time for each kind of batch
_RESTORE_PAUSE: Final = 1.0  # seconds within which a queue that vanished is made again only once


def name_on_sqs(queue: Queue) -> str:
    """Return what a queue is called there: dots become hyphens, and a FIFO queue ends in ``.fifo``.

    Raises:
        Invalid: SQS takes no such name.
    """
    fifo = is_fifo(queue)
    name = queue.name.removesuffix(_FIFO) if fifo else queue.name
    name = name.replace(".", "-") + (_FIFO if fifo else "")
    if not _NAME.fullmatch(name.removesuffix(_FIFO)) or len(name) > _LONGEST_NAME:
        raise Invalid(
            f"queue {queue.id}: {name!r} is no name for an SQS queue: letters, digits, _ and -, at most"
            f" {_LONGEST_NAME} of them; set `queue_name`"
        )
    return name


def is_fifo(queue: Queue) -> bool:
    return options_of(queue).fifo or queue.name.endswith(_FIFO)


class SqsQueue:
    """A declared queue while its driver runs.

    Thread safety: every method may be called from any thread; those that call the service block.
    """

    def __init__(self, queue: Queue, config: SqsConfig, client: Client, calls: Pool) -> None:
        self.queue = queue
        self.name = name_on_sqs(queue)
        self.fifo = is_fifo(queue)
        self.client = client
        self._config = config
        self._options = options_of(queue)
        self._url = ""
        self._restoring = threading.Lock()
        self._restored_at = -math.inf
        self.retention = 0.0  # seconds
        self.left = threading.Condition()  # notified when this process has taken a message out
        width = 1 if self.fifo else _WIDTH
        self.sends = Batches(self._send, calls, width=width, largest=messages.LARGEST)
        self.deletes = Batches(self.delete, calls, width=_WIDTH)
        self.hides = Batches(self._hide, calls, width=_WIDTH)

    @property
    def visibility(self) -> int:
        """Seconds that a message stays with whoever has received it, unless that is extended."""
        asked = self._options.visibility_timeout
        return math.ceil(self._config.visibility_timeout if asked is None else asked)

    # declaring

    def declare(self) -> None:
        """Find or create the queue. Raises Conflict where there is one that does not fit."""
        url = self.client.url_of(self.name)
        if url is None:
            try:
                url = self.client.create(self.name, self._wanted())
            except Conflict:  # somebody else was faster
                url = self.client.url_of(self.name)
                if url is None:
                    raise
        found = self.client.attributes(url)
        self._check(found)
        self._url = url
        self.retention = float(found.get("MessageRetentionPeriod", self._config.message_retention_period))

    def verify(self) -> None:
        """Raise what `declare` would, as far as that can be known without making the queue."""
        url = self.client.url_of(self.name)
        if url is not None:
            self._check(self.client.attributes(url))

    def _wanted(self) -> dict[str, str]:
        config, given = self._config, self._given()
        attributes = {
            "MessageRetentionPeriod": _whole(config.message_retention_period),
            "VisibilityTimeout": _whole(config.visibility_timeout),
            "DelaySeconds": _whole(config.default_delay_seconds),
            **given,
        }
        return {**attributes, "FifoQueue": "true"} if self.fifo else attributes

    def _given(self) -> dict[str, str]:
        """Return the attributes that the queue's own options ask for."""
        options: SqsQueueOptions = self._options
        asked = {
            "MessageRetentionPeriod": options.message_retention_period,
            "VisibilityTimeout": options.visibility_timeout,
            "DelaySeconds": options.delay_seconds,
        }
        return {name: _whole(value) for name, value in asked.items() if value is not None}

    def _check(self, found: Mapping[str, str]) -> None:
        differences = [
            f"{name} is {found.get(name)}, and {value} is asked for"
            for name, value in self._given().items()
            if found.get(name) != value
        ]
        if differences:
            raise Conflict(
                f"queue {self.queue.id}: SQS has a queue {self.name} already, and it differs: {'; '.join(differences)}."
                " Change the options of the queue, or the queue (aws sqs set-queue-attributes)"
            )

    def guarded(self, call: Callable[[str], _T]) -> _T:
        """Call with the queue's URL; a queue that has vanished meanwhile is made again, for its messages are gone."""
        try:
            return call(self._url)
        except NotFound:
            with self._restoring:
                if time.monotonic() - self._restored_at > _RESTORE_PAUSE:
                    self.declare()
                    self._restored_at = time.monotonic()
                    _log.warning("an SQS queue had vanished", extra={"fields": {"queue": self.queue.id}})
            try:
                return call(self._url)
            except NotFound as error:  # it takes a while until it is known everywhere
                raise Conflict(str(error), retryable=True) from None

    # sending

    def entry_of(self, message: Message) -> dict[str, Any]:
        """Return the entry of a message that is published. Raises Invalid where SQS cannot take it."""
        if self.fifo:
            return {**messages.to_entry(message), **self._order_of(message)}
        delay = message.delay or _seconds_of(message)
        due = None if delay <= LONGEST_DELAY else time.time() + delay
        entry = messages.to_entry(message, due)
        if delay > 0:  # without it, the queue's own delay counts
            entry["DelaySeconds"] = math.ceil(min(delay, LONGEST_DELAY))
        return entry

    def copy_of(self, message: Message, delay: float) -> dict[str, Any]:
        """Return the entry of a message that takes the place of one that is there."""
        if self.fifo:
            entry = {**messages.to_entry(message), **self._order_of(message)}
            # With the old one SQS would take it for a repetition, and say that all is well.
            entry["MessageDeduplicationId"] = _id_of(f"{message.id} {time.time_ns()}")
            return entry
        due = None if delay <= LONGEST_DELAY else time.time() + delay
        return {**messages.to_entry(message, due), "DelaySeconds": math.ceil(min(delay, LONGEST_DELAY))}

    def _order_of(self, message: Message) -> dict[str, str]:
        headers = message.headers
        for name in ("delay", messages.DELAY_SECONDS):
            if message.delay if name == "delay" else headers.get(name):
                raise Invalid(
                    f"{name}: queue {self.queue.id} is FIFO, and SQS delays no single messages there; leave it out, or"
                    " set the queue's delay_seconds"
                )
        group = headers.get(messages.GROUP_ID)
        if group is not None and not _ID.fullmatch(str(group)):
            raise Invalid(f"headers: {messages.GROUP_ID}: SQS takes 1 to 128 visible ASCII characters, found {group!r}")
        if group is None:
            group = _id_of(str(headers.get("partition_key") or _DEFAULT_GROUP))
        once = headers.get(messages.DEDUPLICATION_ID)
        return {
            "MessageGroupId": str(group),
            "MessageDeduplicationId": _id_of((message.id if once is None else str(once)) + message.edition),
        }

    def _send(self, entries: Sequence[Mapping[str, Any]]) -> Failures:
        try:
            return self.guarded(partial(self._send_to, entries))
        except Invalid as error:
            if not str(error.details.get("code", "")).endswith("BatchRequestTooLong") or len(entries) == 1:
                raise
        # An endpoint with the old limit of 256 KiB.
        return {
            index: failure
            for index, entry in enumerate(entries)
            for failure in self.guarded(partial(self._send_to, [entry])).values()
        }

    def _send_to(self, entries: Sequence[Mapping[str, Any]], url: str) -> Failures:
        return self.client.send(url, entries)

    def delete(self, entries: Sequence[Mapping[str, Any]]) -> Failures:
        failures = self.guarded(lambda url: self.client.delete(url, entries))
        self.wake()
        return failures

    def _hide(self, entries: Sequence[Mapping[str, Any]]) -> Failures:
        return self.guarded(lambda url: self.client.hide(url, entries))

    def wake(self) -> None:
        with self.left:
            self.left.notify_all()

    # looking

    def receive(self, count: int, wait: float) -> list[dict[str, Any]]:
        return self.guarded(lambda url: self.client.receive(url, count, wait, self.visibility))

    def hand_back(self, raws: Sequence[Mapping[str, Any]]) -> None:
        """Let others have messages that were received for nothing, at once; what cannot be told comes back anyway."""
        try:
            entries = [{"ReceiptHandle": raw["ReceiptHandle"], "VisibilityTimeout": 0} for raw in raws]
            for start in range(0, len(entries), 10):
                self._hide(entries[start : start + 10])
        except WippyQueueError as error:
            _log.warning(
                "messages could not be handed back; they come again after their visibility timeout",
                extra={"fields": {"queue": self.queue.id, "messages": len(raws), "error": str(error)}},
            )

    def info(self) -> QueueInfo:
        found = self.guarded(self.client.attributes)
        ready, in_flight, delayed = (
            int(found.get(f"ApproximateNumberOfMessages{which}", 0)) for which in ("", "NotVisible", "Delayed")
        )
        return QueueInfo(message_count=ready + in_flight + delayed, ready=ready, in_flight=in_flight, delayed=delayed)

    def close(self, error: WippyQueueError) -> None:
        for batches in (self.sends, self.deletes, self.hides):
            batches.close(error)


def delete_item(handle: str, until: Callable[[], float], done: Callable[[WippyQueueError | None], None]) -> Item:
    return Item(entry={"ReceiptHandle": handle}, until=until, done=done)


def hide_item(
    handle: str, seconds: float, until: Callable[[], float], done: Callable[[WippyQueueError | None], None]
) -> Item:
    entry = {"ReceiptHandle": handle, "VisibilityTimeout": math.ceil(seconds)}
    return Item(entry=entry, until=until, done=done)


def send_item(
    entry: Mapping[str, Any], until: Callable[[], float], done: Callable[[WippyQueueError | None], None]
) -> Item:
    return Item(entry=entry, size=messages.size_of(entry), until=until, done=done)


def _seconds_of(message: Message) -> float:
    wanted = message.headers.get(messages.DELAY_SECONDS)
    if wanted is None:
        return 0.0
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or wanted < 0:
        raise Invalid(f"headers: {messages.DELAY_SECONDS}: expected seconds, 0 or more, found {wanted!r}")
    return float(wanted)


def _id_of(text: str) -> str:
    """Return an id that SQS takes, the same for the same text."""
    return text if _ID.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()


def _whole(seconds: float) -> str:
    return str(math.ceil(seconds))
