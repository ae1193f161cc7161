"""What exists in the Wippy runtime and not here, so that an error can say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_KINDS = """
    function.lua.bc function.wasm function.wat library.lua.bc module.lua process.lua process.lua.bc process.wasm
    workflow.lua workflow.lua.bc
    http.service http.router http.endpoint http.static
    db.sql.sqlite db.sql.postgres db.sql.mysql db.sql.mssql db.sql.oracle
    store.sql store.kv.raft store.kv.crdt
    process.host process.service terminal.host temporal.client temporal.worker
    cloudstorage.s3 fs.directory fs.embed
    env.storage.file env.storage.static env.storage.router
    template.jet template.set
    security.policy.expr security.token_store
    contract.definition contract.binding
    exec.native exec.docker
    network network.socks5 network.i2p network.tailscale
    registry.entry ns.definition ns.requirement ns.dependency
"""

_MODULES = """
    archive base64 cdc channel cloudstorage compress contract crypto ctx env eval events excel exec expr fs funcs hash
    html http http_client hub io json logger metrics otel ostime payload pg process queue registry runtime security sql
    store stream system template templates text time treesitter tty uuid websocket workflow yaml
"""

KINDS: Final[frozenset[str]] = frozenset(_KINDS.split())
# All of Wippy's: those that exist here too are known to the engine, which is asked first.
MODULES: Final[frozenset[str]] = frozenset(_MODULES.split())

# Fields of kinds that exist here. Wippy's applications give `lifecycle` also to what is no service, to no effect.
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "queue.queue": frozenset({"lifecycle"}),
    "function.lua": frozenset({"pool", "security", "lifecycle"}),
    "library.lua": frozenset({"method"}),
    "env.storage.os": frozenset({"lifecycle"}),
    "env.storage.memory": frozenset({"lifecycle"}),
    "env.variable": frozenset({"lifecycle"}),
    "config.aws": frozenset({"access_key_id_env", "secret_access_key_env", "session_token_env"}),
}

# What `wippy.yaml` may hold for Wippy: the description of a module, and settings of the runtime.
_SETTINGS = """
    organization module description license repository homepage keywords
    cluster dispatcher extensions finder logger logmanager lsp metrics modules network_service otel override profiler
    prometheus registry relay supervisor
"""
SETTINGS: Final[frozenset[str]] = frozenset(_SETTINGS.split())
