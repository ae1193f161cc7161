"""What goes wrong between us and the server, sorted by what helps."""

from __future__ import annotations

from typing import Final

from redis import exceptions

from wippy_queue.errors import Internal, PermissionDenied, Unavailable, WippyQueueError
from wippy_queue.redact import redact

# What a reply may begin with that says: not here, or not now. Nothing was done then.
_NOT_NOW: Final = ("MISCONF", "BUSY ", "NOREPLICAS", "TRYAGAIN", "UNBLOCKED", "LOADING", "MASTERDOWN", "CLUSTERDOWN")


class Trouble(Exception):
    """It may pass. ``unknown``: the server may have done what it was asked for, its answer never came."""

    def __init__(self, text: str, *, unknown: bool) -> None:
        super().__init__(text)
        self.unknown = unknown


def text_of(error: BaseException) -> str:
    return redact(str(error) or repr(error))


def of_connection(error: Exception, *, unknown: bool) -> Trouble | WippyQueueError:
    """Return what a failed connection means."""
    refused = isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError))
    if refused or isinstance(error, exceptions.NoPermissionError) or _is_about_the_password(error):
        return PermissionDenied(f"Redis refuses us: {text_of(error)}; check the user and password in `url`")
    return Trouble(text_of(error), unknown=unknown)


def of_reply(error: Exception) -> Trouble | WippyQueueError:
    """Return what an error that the server answered with means; it has done nothing then."""
    if isinstance(error, exceptions.OutOfMemoryError):
        return Unavailable(
            "Redis is out of memory, so it takes no more messages; raise `maxmemory`, or consume what is there"
        )
    if isinstance(error, exceptions.NoPermissionError):
        return PermissionDenied(
            f"Redis refuses us: {text_of(error)}; allow the user the keys and channels of `key_prefix`"
        )
    moved = isinstance(error, (exceptions.ReadOnlyError, exceptions.ClusterError, exceptions.AskError))
    if moved or isinstance(error, exceptions.TryAgainError) or str(error).startswith(_NOT_NOW):
        return Trouble(text_of(error), unknown=False)
    if isinstance(error, exceptions.ConnectionError):
        return of_connection(error, unknown=False)
    return Internal(f"Redis refuses a script of ours: {text_of(error)}")


def wants_new_connection(error: Exception) -> bool:
    """Return whether that server is no longer the one to talk to."""
    return isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError)) or str(error).startswith(
        ("UNBLOCKED", "LOADING")
    )


def _is_about_the_password(error: Exception) -> bool:
    return str(error).startswith(("WRONGPASS", "NOAUTH", "invalid username-password", "Authentication required"))
