"""SIGINT and SIGTERM: the first asks a command to end in good order, the second cuts it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

_STOP: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def caught_signals(on_first: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have ``on_first`` called, on a thread of its own, with the first signal; the second ends the process at once.

    Python runs signal handlers on the main thread alone, and one that arrives just before that thread blocks waits
    until it wakes. The wakeup descriptor is written to at once, whatever the main thread does.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        first = True
        while received := reader.recv(64):  # nothing: the block has ended
            for number in received:
                if number not in _STOP:
                    continue
                if not first:
                    os.write(2, b"cut by a second signal\n")
                    os._exit(128 + number)
                first = False
                on_first(signal.Signals(number))

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda _number, _frame: None) for number in _STOP}  # None writes nothing
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()
