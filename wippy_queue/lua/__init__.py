"""Sandboxed Lua: the runtime, the handlers that run in it, and the modules that they may require."""
