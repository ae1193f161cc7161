"""What pika logs of our connections: the same that a link says in one line, with a traceback for each layer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _NotOf(logging.Filter):
    """Lets through what other threads log, and everything where a logger is set to DEBUG."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


@contextmanager
def quiet_pika() -> Iterator[None]:
    """Keep out of the log what pika says on this thread, unless its logger is set to DEBUG."""
    not_ours = _NotOf(threading.get_ident())
    loggers = [
        logger
        for name, logger in list(logging.Logger.manager.loggerDict.items())
        if name.startswith("pika.") and isinstance(logger, logging.Logger)
    ]
    for logger in loggers:
        logger.addFilter(not_ours)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(not_ours)
