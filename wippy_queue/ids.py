"""Registry ids: ``namespace:name``."""

from __future__ import annotations

import re

from wippy_queue.errors import Invalid

_ID = re.compile(r"(?P<namespace>[A-Za-z_][\w-]*(?:\.[A-Za-z0-9_][\w-]*)*):(?P<name>[A-Za-z0-9_][\w.-]*)")


class EntryId(str):
    """The id of an entry; it equals the plain text ``namespace:name``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, namespace: str | None = None) -> EntryId:
        """Return the id that ``text`` names.

        Args:
            text: ``namespace:name``, or a bare name where ``namespace`` is given.
            namespace: what a reference without a namespace belongs to.

        Raises:
            Invalid: the text is not an id.
        """
        if not isinstance(text, str):
            raise Invalid(f"expected a registry id like app.queue:tasks, found {text!r}")
        full = text if ":" in text or namespace is None else f"{namespace}:{text}"
        if not _ID.fullmatch(full):
            raise Invalid(f"expected a registry id like app.queue:tasks, found {text!r}")
        return cls(full)

    @property
    def namespace(self) -> str:
        return self.partition(":")[0]

    @property
    def name(self) -> str:
        return self.partition(":")[2]
