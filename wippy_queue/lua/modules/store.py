"""What the `store` module of Lua asks Python for; values stay the bytes that Lua made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from wippy_queue.lua.convert import text
from wippy_queue.store import Store, StoreEntry

if TYPE_CHECKING:
    from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    """Return the functions that store.lua calls; all but ``open`` get a key or options that Lua has checked."""

    def store(store_id: bytes) -> Store:
        return cast(Store, context.host.store(text(store_id)))

    def open_(store_id: bytes) -> bool:
        context.require("store.get", text(store_id))
        store(store_id)
        return True

    def allowed(action: str, store_id: bytes, key: bytes) -> Store:
        context.require(f"store.key.{action}", text(store_id), meta={"key": text(key)})
        return store(store_id)

    def set_(store_id: bytes, key: bytes, value: bytes, ttl: float) -> bool:
        allowed("set", store_id, key).put(text(key), value, ttl=ttl)
        return True

    def put(
        store_id: bytes, key: bytes, value: bytes, ttl: float, only_if_absent: bool, if_version: bytes | None
    ) -> bytes:
        entry = allowed("set", store_id, key).put(
            text(key),
            value,
            ttl=ttl,
            only_if_absent=only_if_absent,
            if_version=None if if_version is None else int(if_version),
        )
        return msgspec.msgpack.encode(_plain(entry))

    def list_(store_id: bytes, prefix: bytes, limit: int, after: bytes | None) -> bytes:
        context.require("store.key.list", text(store_id), meta={"prefix": text(prefix)})
        page = store(store_id).list(text(prefix), limit=limit, after=None if after is None else text(after))
        return msgspec.msgpack.encode(
            {
                "items": [_plain(entry) for entry in page.entries],
                "cursor": page.cursor or "",
                "has_more": page.cursor is not None,
            }
        )

    def info(store_id: bytes) -> bytes:
        context.require("store.info", text(store_id))
        found = store(store_id).info()
        return msgspec.msgpack.encode(
            {
                "id": text(store_id),
                "backend": found.backend,
                "consistency": "linearizable",
                "durable": found.durable,
                "list": True,
                "versioned": True,
                "conditional_put": True,
                "ttl": True,
                "entries": found.entries,
                "max_size": found.max_size,
            }
        )

    return {
        "open": open_,
        "get": lambda store_id, key: allowed("get", store_id, key).get(text(key)).value,
        "entry": lambda store_id, key: msgspec.msgpack.encode(_plain(allowed("get", store_id, key).get(text(key)))),
        "has": lambda store_id, key: allowed("has", store_id, key).has(text(key)),
        "delete": lambda store_id, key: allowed("delete", store_id, key).delete(text(key)),
        "set": set_,
        "put": put,
        "list": list_,
        "info": info,
    }


def _plain(entry: StoreEntry) -> dict[str, Any]:
    """Return an entry as Lua gets it: its version as text, and the value spliced in as it is."""
    plain = {"key": entry.key, "value": msgspec.Raw(entry.value), "version": str(entry.version)}
    return plain if entry.expires_at is None else {**plain, "expires_at": entry.expires_at}
