"""Every error of the library: what went wrong, of which kind, and whether a retry can help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

import attrs


class Kind(StrEnum):
    """What sort of error it is; the names are those of the Wippy runtime."""

    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    INVALID = "Invalid"
    PERMISSION_DENIED = "PermissionDenied"
    UNAVAILABLE = "Unavailable"
    INTERNAL = "Internal"
    CANCELED = "Canceled"
    CONFLICT = "Conflict"
    TIMEOUT = "Timeout"
    RATE_LIMITED = "RateLimited"
    UNKNOWN = "Unknown"


class WippyQueueError(Exception):
    """Base of every error that this library raises.

    Args:
        message: what happened, where, and the cure.
        kind: the sort of error; a subclass has a default of its own.
        retryable: True or False where it is known whether the same call can succeed later, else None.
        details: free-form data for programs; ``retry_after`` (seconds) is honoured by the failure policy.
    """

    default_kind: ClassVar[Kind] = Kind.UNKNOWN
    default_retryable: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        kind: Kind | None = None,
        retryable: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = self.default_kind if kind is None else kind
        self.retryable = self.default_retryable if retryable is None else retryable
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return self.message


class NotFound(WippyQueueError):
    """The thing that was named does not exist."""

    default_kind = Kind.NOT_FOUND
    default_retryable = False


class AlreadyExists(WippyQueueError):
    """The thing that was to be created is there already."""

    default_kind = Kind.ALREADY_EXISTS
    default_retryable = False


class Invalid(WippyQueueError):
    """The caller passed something that can never work."""

    default_kind = Kind.INVALID
    default_retryable = False


class PermissionDenied(WippyQueueError):
    """A security policy refuses the action."""

    default_kind = Kind.PERMISSION_DENIED
    default_retryable = False


class Unavailable(WippyQueueError):
    """A service that is needed is not running or cannot be reached."""

    default_kind = Kind.UNAVAILABLE
    default_retryable = True


class QueueFull(Unavailable):
    """The queue holds ``max_length`` messages and does not take more."""


class Internal(WippyQueueError):
    """Something broke that the caller could not have known."""

    default_kind = Kind.INTERNAL


class Canceled(WippyQueueError):
    """The work was cancelled, usually because a consumer stops."""

    default_kind = Kind.CANCELED


class Conflict(WippyQueueError):
    """The state is not the one that the caller assumes."""

    default_kind = Kind.CONFLICT
    default_retryable = False


class Timeout(WippyQueueError):
    """A deadline has passed."""

    default_kind = Kind.TIMEOUT
    default_retryable = True


class RateLimited(WippyQueueError):
    """Too many calls for now."""

    default_kind = Kind.RATE_LIMITED
    default_retryable = True


@attrs.frozen
class Problem:
    """One mistake in an application: where it stands, what was expected, what was found."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    entry: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        subject = " ".join(part for part in (self.entry, self.path) if part)
        return ": ".join(part for part in (place, subject, self.message) if part)


class ConfigurationError(Invalid):
    """An application that cannot be loaded; ``problems`` lists every mistake that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the application:\n{lines}")


@attrs.frozen
class StopReport:
    """What became of the messages that were in the consumers' hands when they were stopped.

    Each field holds message ids: ``finished`` were handled and settled during the stop, ``handed_back`` went back to
    the driver untouched, ``abandoned`` were cut at the deadline, or handled when the driver's backend did not answer
    any more; those will be delivered again.
    """

    finished: tuple[str, ...] = ()
    handed_back: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()

    def __add__(self, other: StopReport) -> StopReport:
        return StopReport(
            self.finished + other.finished,
            self.handed_back + other.handed_back,
            self.abandoned + other.abandoned,
        )


class ShutdownTimeout(Timeout):
    """Messages could not be finished by the deadline of a stop; everything was torn down all the same."""

    def __init__(self, message: str, report: StopReport) -> None:
        super().__init__(message, retryable=False, details={"abandoned": list(report.abandoned)})
        self.report = report
