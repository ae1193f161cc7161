"""Secrets taken out of text that people or programs will read."""

from __future__ import annotations

import re
from typing import Final

_MASK: Final = "***"

# scheme://user:password@host. A raw @ in a password belongs to it; so does a raw slash, but scheme://host:6379/path@x
# has none.
_PASSWORD: Final = re.compile(
    r"""
    (?P<kept> \b [a-z][a-z0-9+.-]{,40} :// [^\s/?\#:@"']* : )
    (?: [^\s/?\#"']* | (?: (?<= //: ) | (?! \d+ [/?\#] ) ) (?: (?! :// ) [^\s"'] )* )
    @
    """,
    re.IGNORECASE | re.VERBOSE,
)
_QUERY: Final = re.compile(r"([?&](?:password|passwd|secret|token)=)[^\s&#\"']+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return the text with the password of every URL in it replaced by ``***``."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{_MASK}", _PASSWORD.sub(rf"\g<kept>{_MASK}@", text))


def redact_url(url: str) -> str:
    """Return a URL that may be shown: ``amqp://guest:***@localhost``; one without a password comes back as it is."""
    return redact(url)
