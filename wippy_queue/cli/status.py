"""The file in which ``run`` tells how it is, and ``health`` reads it: no port, no broker, no lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import click
import msgspec

from wippy_queue.engine import Engine
from wippy_queue.errors import NotFound, Unavailable
from wippy_queue.events import Event, ServiceStateChanged
from wippy_queue.redact import redact

_log = logging.getLogger(__name__)

_INTERVAL: Final = 2.0  # seconds between two writes
FRESH: Final = 10.0  # seconds after which what the file says is no longer believed

health_file_option = click.option(
    "--health-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Where the state is written and read; without it a file for APP in $XDG_RUNTIME_DIR or the folder for"
    " temporary files.",
)


def default_file(app: Path) -> Path:
    """Return the file of an application, the same for everybody who names the same folder or file."""
    digest = hashlib.sha256(os.fsencode(app.resolve())).hexdigest()[:16]
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(folder) / f"wippy-queue-{os.getuid()}-{digest}.json"


class _Service(msgspec.Struct):
    state: str
    since: float
    error: str | None
    restarts: int


class _Written(msgspec.Struct):
    """What the file holds."""

    pid: int
    time: float
    live: bool
    ready: bool
    problems: list[str]
    services: dict[str, _Service]


class StatusFile:
    """Writes the state of an engine every two seconds and whenever it changes, until the block ends.

    Args:
        path: replaced as a whole each time, so that a link somebody has put there is never followed.
        engine: which need not run.
        required: a file that cannot be written is an error at the beginning; else there is a warning.
    """

    def __init__(self, path: Path, engine: Engine, *, required: bool) -> None:
        self._path = path
        self._engine = engine
        self._required = required
        self._changed = threading.Event()
        self._ending = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="status-file", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._write()
        except OSError as error:
            if self._required:
                raise Unavailable(
                    f"--health-file {self._path}: {error.strerror}; name a file that can be written"
                ) from None
            self._failed(error)
        self._unsubscribe = self._engine.subscribe(self._on_event)
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._changed.set()
        self._unsubscribe()
        self._thread.join(_INTERVAL)  # a disk that hangs must not keep the process from ending
        with contextlib.suppress(OSError, NotFound):
            if _read(self._path)["pid"] == os.getpid():
                self._path.unlink()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ServiceStateChanged):
            self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.wait(_INTERVAL)
            self._changed.clear()
            if self._ending:
                return
            try:
                self._write()
                self._failing = False
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._failing:  # once is enough
            _log.warning(
                "the state cannot be written, wippy-queue health will not see it; name another file with --health-file",
                extra={"fields": {"file": str(self._path), "error": str(error)}},
            )
        self._failing = True

    def _write(self) -> None:
        text = json.dumps(msgspec.to_builtins(_state_of(self._engine)), ensure_ascii=False, indent=2)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")  # of mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(redact(text))
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink()
            raise


def _state_of(engine: Engine) -> _Written:
    health = engine.health()
    return _Written(
        pid=os.getpid(),
        time=time.time(),
        live=health.live,
        ready=health.ready,
        problems=list(health.problems),
        services={
            service_id: _Service(status.state.value, status.since, status.error, status.restarts)
            for service_id, status in engine.services().items()
        },
    )


def read_state(path: Path) -> dict[str, Any]:
    """Return what a process that runs now says of itself.

    Raises:
        NotFound: no process does, or what it said is too old.
    """
    state = _read(path)
    age = time.time() - state["time"]
    if abs(age) > FRESH:  # also one from the future: the clock was set back, and the next write will tell
        raise NotFound(f"{path} is {age:.0f} s old; the process {state['pid']} hangs, or it was killed")
    if not _runs(state["pid"]):
        raise NotFound(f"the process {state['pid']} that wrote {path} is gone")
    return state


def _read(path: Path) -> dict[str, Any]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise NotFound(f"{path} is no file")
            if found.st_uid not in (os.geteuid(), os.getuid()) and os.geteuid() != 0:
                raise NotFound(f"{path} belongs to another user, and is not believed")
            written = msgspec.json.decode(file.read(), type=_Written)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, msgspec.DecodeError):
        raise NotFound(f"{path} was not written by wippy-queue run") from None
    state: dict[str, Any] = msgspec.to_builtins(written)
    return state


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
