"""pika's connection, with what it has no public name for: all that we reach into it for stands here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import pika
from pika import frame

from wippy_queue.drivers.amqp.mending import mended

_READ: Final = 32_768  # bytes that are read at a time; pika's 4096 halve the rate of large bodies


class Connection(pika.SelectConnection):
    """One that a header of another program does not end, see `mending.py`, and that sends frames together.

    pika has the system take each frame with a call of its own, three for a message.

    Thread safety: the thread of its I/O loop.
    """

    _held: list[bytes] | None = None
    _read: list[Callable[[], None]] | None = None  # what is to be done when what was read is worked through

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """Send at the end of the block what is sent inside it."""
        held: list[bytes] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            if held:
                self._output_marshaled_frames(held)

    def after_read(self, work: Callable[[], None]) -> None:
        """Do something once all that was read with the present frame is worked through."""
        if self._read is None:
            work()
        else:
            self._read.append(work)

    def _on_data_available(self, data_in: bytes) -> None:
        self._read = []
        try:
            super()._on_data_available(data_in)  # type: ignore[misc]  # no public name; a test watches over it
        finally:
            after, self._read = self._read, None
            for work in after:
                work()

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        if self._held is not None:
            self._held.extend(marshaled_frames)
        else:
            joined = [b"".join(marshaled_frames)]
            super()._output_marshaled_frames(joined)  # type: ignore[misc]  # no public name; a test watches over it

    def _read_frame(self) -> Any:
        try:
            return super()._read_frame()  # type: ignore[misc]  # no public name; a test watches over it
        except (ValueError, OverflowError, OSError, RecursionError):
            return frame.decode_frame(mended(self._frame_buffer))  # type: ignore[attr-defined]  # the same

    def read_more(self) -> None:
        """Read more at a time than pika does; once the connection is open."""
        self._transport._MAX_RECV_BYTES = _READ  # type: ignore[attr-defined]  # no public name; a test watches over it

    def abort(self) -> None:
        """Let go of the socket, for the broker does not answer to a close."""
        self._adapter_disconnect_stream()  # type: ignore[attr-defined]  # what pika does then; no public name
