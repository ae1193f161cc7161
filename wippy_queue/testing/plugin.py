"""What pytest loads where `wippy_queue` is installed: the fixture `wippy_engine`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from wippy_queue.testing.engine import MemoryEngine


class EngineFactory:
    """Makes engines in memory and stops them when the test ends."""

    def __init__(self) -> None:
        self._engines: list[MemoryEngine] = []

    def __call__(
        self,
        *paths: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        skip_unsupported: bool = False,
        start: bool = True,
    ) -> MemoryEngine:
        """Load an application from YAML and start it; see `Engine.load`.

        Args:
            paths: folders or YAML files.
            settings: engine settings by name.
            overrides: fields to replace.
            skip_unsupported: drop what is not supported here instead of refusing it.
            start: False where the test registers Python functions or modules first; it calls ``start()`` then.
        """
        from wippy_queue.testing.engine import MemoryEngine

        engine = MemoryEngine.load(*paths, settings=settings, overrides=overrides, skip_unsupported=skip_unsupported)
        return self._made(engine, start)

    def from_entries(
        self,
        declared: Sequence[Mapping[str, Any]],
        namespace: str = "app",
        base_dir: str | os.PathLike[str] = ".",
        *,
        settings: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        skip_unsupported: bool = False,
        start: bool = True,
    ) -> MemoryEngine:
        """Make an application of entries given as dicts and start it; see `Engine.from_entries` and `__call__`."""
        from wippy_queue.testing.engine import MemoryEngine

        engine = MemoryEngine.from_entries(
            declared,
            namespace,
            base_dir,
            settings=settings,
            overrides=overrides,
            skip_unsupported=skip_unsupported,
        )
        return self._made(engine, start)

    def _made(self, engine: object, start: bool) -> MemoryEngine:
        made = cast("MemoryEngine", engine)
        self._engines.append(made)
        if start:
            made.start()
        return made

    def stop(self) -> None:
        """Stop every engine that was made, the last one first."""
        while self._engines:
            self._engines.pop().stop()


@pytest.fixture
def wippy_engine() -> Iterator[EngineFactory]:
    """A factory of engines for the tests of an application: in memory, with a clock that the test moves.

    ::

        def test_a_task_is_handled(wippy_engine):
            engine = wippy_engine("app/")
            engine.publish("app.queue:tasks", {"id": "task-123"}, delay=3600)
            engine.drain()
            assert engine.info("app.queue:tasks").message_count == 0
    """
    factory = EngineFactory()
    yield factory
    factory.stop()
