"""What handlers log, as records of Python's `logging`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wippy_queue.lua.convert import Scalar, readable
from wippy_queue.lua.host import CallContext

_MOST_NAMES: Final = 100  # of one function; further ones log as the function, for Python keeps every logger for ever


def functions(context: CallContext) -> dict[str, Callable[..., Scalar]]:
    root = f"wippy_queue.app.{context.function}"
    names = context.host.logger_names.setdefault(context.function, set())

    def log(level: int, name: bytes, message: bytes, fields: bytes | None) -> int:
        """Log one record; return the lowest level that is logged at all."""
        if name and (name in names or len(names) < _MOST_NAMES):
            names.add(name)
            logger = logging.getLogger(f"{root}.{readable(name)}")
        else:
            logger = logging.getLogger(root)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", readable(message), extra={"fields": _fields(context, fields)})
        return logger.getEffectiveLevel()

    return {"log": log}


def _fields(context: CallContext, encoded: bytes | None) -> dict[str, Any]:
    decoded: Any = {} if encoded is None else msgspec.json.decode(encoded)
    fields: dict[str, Any] = decoded if isinstance(decoded, dict) else {"value": decoded}
    worker, delivery = context.worker, context.delivery
    fields["function"] = context.function
    if worker is not None:
        fields |= {"consumer": worker.consumer, "queue": worker.queue, "worker": worker.worker}
    if delivery is not None:
        fields["message_id"] = delivery.message.id
    return fields
