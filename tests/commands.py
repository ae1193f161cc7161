"""Commands of the command line, as tests run them: in this process, which is fast, or in one of their own."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

DEADLINE = 30.0  # seconds that a line or an exit may take; only a broken product needs them

APP = """\
version: "1.0"
namespace: app
entries:
  - name: files
    kind: queue.driver.sqlite
    file: ${env:TEST_FILE}
  - name: tasks
    kind: queue.queue
    driver: files
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handler
    lifecycle: {auto_start: true}
  - name: handler
    kind: function.lua
    source: file://handler.lua
    modules: [logger]
"""
HANDLER = """\
local logger = require("logger")
return function(body)
    logger:info("began", {id = body.id})
    while body.endless do end
    if body.fail then return nil, "told to" end
    logger:info("ended", {id = body.id})
end
"""
MEMORY_APP = APP.replace("kind: queue.driver.sqlite\n    file: ${env:TEST_FILE}", "kind: queue.driver.memory")


def write_app(folder: Path, entries: str) -> Path:
    app = folder / "app"
    app.mkdir()
    (app / "_index.yaml").write_text(entries, encoding="utf-8")
    (app / "handler.lua").write_text(HANDLER, encoding="utf-8")
    return app


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


class Running:
    """A command that runs, and the lines that it has written to stderr."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wippy_queue", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def line_with(self, text: str) -> str:
        """Wait for a line that holds ``text`` and return it."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no line with {text!r} in\n{''.join(self.seen)}"
            self.seen.append(line)
            if text in line:
                return line

    def exit_code(self) -> int:
        return self.process.wait(DEADLINE)


Run = Callable[..., Running]
