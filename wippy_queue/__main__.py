"""``python -m wippy_queue`` is ``wippy-queue``."""

from __future__ import annotations

from wippy_queue.cli import main

if __name__ == "__main__":
    main()
