"""A thread-based, synchronous message-queue engine; handlers are sandboxed Lua functions, or Python ones."""

from __future__ import annotations

from wippy_queue.access import Actor
from wippy_queue.codecs import decode_body
from wippy_queue.engine import Engine
from wippy_queue.errors import (
    AlreadyExists,
    Canceled,
    ConfigurationError,
    Conflict,
    Internal,
    Invalid,
    Kind,
    NotFound,
    PermissionDenied,
    Problem,
    QueueFull,
    RateLimited,
    ShutdownTimeout,
    StopReport,
    Timeout,
    Unavailable,
    WippyQueueError,
)
from wippy_queue.handlers import CurrentMessage, current_message
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import QueueInfo
from wippy_queue.supervision import ServiceStatus, State

__all__ = [
    "Actor",
    "AlreadyExists",
    "Canceled",
    "ConfigurationError",
    "Conflict",
    "CurrentMessage",
    "Engine",
    "EntryId",
    "Internal",
    "Invalid",
    "Kind",
    "Message",
    "NotFound",
    "PermissionDenied",
    "Problem",
    "QueueFull",
    "QueueInfo",
    "RateLimited",
    "ServiceStatus",
    "ShutdownTimeout",
    "State",
    "StopReport",
    "Timeout",
    "Unavailable",
    "WippyQueueError",
    "current_message",
    "decode_body",
]
