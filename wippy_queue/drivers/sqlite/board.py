"""The started board: which deliveries of an owner have begun, kept where a SIGKILL cannot take it away.

Counting an attempt with a commit for each message would halve the rate. So each owner of leases keeps a small file
beside the database, mapped into memory, and writes the row that a handler begins with into the delivery's slot: that is
one store into the page cache, which outlives the process. Whoever takes over the leases of a dead owner reads its board
and counts an attempt for the rows on it. The owner holds a lock on the file for as long as it lives, so that others can
tell at once whether it is dead.
"""

from __future__ import annotations

import mmap
import os
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Final

from wippy_queue.errors import Unavailable

if sys.platform != "win32":
    import fcntl

_WORD: Final = 8  # bytes
_REVOKED: Final = 0  # the first word: not 0 once the owner has lost its leases
_FIRST_SLOT: Final = 1


def board_path(folder: Path, token: int) -> Path:
    return folder / f"{token:016x}"


class Board:
    """The board of a living owner.

    Thread safety: ``begin``, ``clear`` and ``revoke`` may be called from any thread, also after ``close``.
    """

    def __init__(self, folder: Path, token: int, slots: int) -> None:
        """Make the file. Call it inside a write transaction: nobody sweeps unlocked boards meanwhile."""
        if sys.platform == "win32":
            raise Unavailable("queue.driver.sqlite needs the file locks of Linux or macOS", retryable=False)
        folder.mkdir(exist_ok=True)
        self.path = board_path(folder, token)
        size = (_FIRST_SLOT + slots) * _WORD
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            # Written out, not only made longer: storing into a hole of a mapped file on a full disk is a SIGBUS.
            os.pwrite(self._file, bytes(size), 0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._map = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            self.path.unlink(missing_ok=True)
            raise
        self._words = memoryview(self._map).cast("q")

    def begin(self, slot: int, row: int) -> bool:
        """Note that ``row`` has begun; return False when its lease is gone."""
        # First write, then look: whoever revokes first sets the flag, then reads. So one of the two sees the other.
        try:
            self._words[_FIRST_SLOT + slot] = row
            return self._words[_REVOKED] == 0
        except ValueError:  # closed
            return False

    def clear(self, slot: int) -> None:
        with suppress(ValueError):
            self._words[_FIRST_SLOT + slot] = 0

    def revoke(self) -> None:
        with suppress(ValueError):
            self._words[_REVOKED] = 1

    @property
    def revoked(self) -> bool:
        try:
            return self._words[_REVOKED] != 0
        except ValueError:
            return True

    def close(self) -> None:
        """Unlock the board and leave it for whoever takes the leases over; idempotent."""
        with suppress(ValueError):
            self._words[_REVOKED] = 1
            self._words.release()
            self._map.close()
            os.close(self._file)

    def remove(self) -> None:
        """Close the board and delete it: the owner has no leases any more."""
        self.close()
        remove_board(self.path)


def remove_board(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        path.parent.rmdir()  # fails while other boards are there


def is_dead(path: Path) -> bool:
    """Return whether the owner of a board has ended: nobody holds its lock, or the file is gone."""
    if sys.platform == "win32":
        return False
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # not ours to judge: then the lease decides
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def revoke_and_read(path: Path) -> list[int]:
    """Take an owner's right to begin away, for good, and return the rows that have begun."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        size = os.fstat(file).st_size // _WORD * _WORD
        if size == 0:  # killed while it was made
            return []
        os.pwrite(file, array("q", [1]).tobytes(), _REVOKED * _WORD)
        words = array("q")
        words.frombytes(os.pread(file, size, 0))
    finally:
        os.close(file)
    return [row for row in words[_FIRST_SLOT:] if row]
