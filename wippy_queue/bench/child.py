"""``python -m wippy_queue.bench.child``: one run, described on stdin as JSON; the measures go to stdout."""

from __future__ import annotations

import json
import sys

import attrs

from wippy_queue.bench.measure import Run, measure
from wippy_queue.errors import WippyQueueError


def main() -> None:
    run = Run(**json.load(sys.stdin))
    try:
        measures = measure(run)
    except WippyQueueError as error:
        sys.exit(str(error))
    json.dump(attrs.asdict(measures), sys.stdout)


if __name__ == "__main__":
    main()
