"""Publishing, and the message in hand, for handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from wippy_queue.delivery import Delivery
from wippy_queue.errors import Canceled, Internal, Invalid, NotFound, PermissionDenied, WippyQueueError
from wippy_queue.handler import ACK, Outcome
from wippy_queue.lua.convert import readable, text
from wippy_queue.lua.host import CallContext
from wippy_queue.message import Encoding

_PASSED_ON: Final = (Invalid, PermissionDenied, Canceled)  # anything else is the queue's fault, not the caller's

_logger = logging.getLogger(__name__)


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    host = context.host

    def check_publish(queue_id: str) -> None:
        try:
            context.require("queue.publish")
            context.require("queue.publish.queue", queue_id)
        except PermissionDenied as error:  # handlers of Wippy know this as a bad call
            raise Invalid(error.message, details=error.details) from error

    def encoding(queue_id: bytes) -> tuple[str, bool]:
        name = text(queue_id)
        check_publish(name)  # who may not publish does not learn which queues there are
        found: Encoding = _ask(lambda: host.queue_encoding(name))
        # A worker acts with the same rights for all of its messages, so what is allowed now stays allowed.
        return found, bool(context.batch) and not host.may_wait(name)

    def publish(queue_id: bytes, body: bytes, encoding: bytes, headers: bytes | None, dropped: bytes | None) -> bool:
        if dropped is not None:
            fields = {"function": context.function, "queue": readable(queue_id), "headers": readable(dropped)}
            _logger.warning("headers that are no text, finite number or boolean were dropped", extra={"fields": fields})
        name = text(queue_id)
        check_publish(name)
        if not context.parted and host.may_wait(name):
            context.part()
        decoded = {} if headers is None else msgspec.json.decode(headers)
        how = cast("Encoding", encoding.decode())
        _ask(lambda: host.publish(name, body, how, decoded, context.cancel, context.deadline))
        return True

    def info(queue_id: bytes) -> tuple[int | None, ...]:
        context.require("queue.info", text(queue_id))
        found = _ask(lambda: host.info(text(queue_id)))
        return found.message_count, found.ready, found.in_flight, found.delayed, found.consumer_count

    def message_id() -> str:
        return _in_hand(context).message.id

    def headers() -> bytes:
        return msgspec.json.encode(_in_hand(context).message.all_headers())

    def settle(ack: bool) -> bool:
        delivery, worker = _in_hand(context), context.worker
        if worker is None:
            raise Invalid("a message can be settled inside the handler of a consumer only")
        if worker.auto_ack:
            raise Invalid("the consumer has auto_ack: true, its messages are acked before the handler starts")
        outcome = ACK if ack else Outcome(error=WippyQueueError("the handler called msg:nack()"), by_hand=True)
        if not worker.settle(delivery, outcome):
            raise Invalid(f"message {delivery.message.id} is settled already")
        return True

    return {
        "encoding": encoding,
        "publish": publish,
        "info": info,
        "id": message_id,
        "headers": headers,
        "settle": settle,
    }


def _in_hand(context: CallContext) -> Delivery:
    if context.delivery is None:
        raise Invalid("there is no message: queue.message() works inside the handler of a consumer")
    return context.delivery


def _ask(call: Callable[[], Any]) -> Any:
    """Call the engine; errors get the kinds that handlers know from the queue module of Wippy."""
    try:
        return call()
    except _PASSED_ON:
        raise
    except NotFound as error:
        raise Internal(error.message, retryable=False, details=error.details) from error
    except WippyQueueError as error:
        raise Internal(error.message, retryable=True, details=error.details) from error
