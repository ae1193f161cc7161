"""Whether the file could be opened, found out without opening it for writing, and without making it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from wippy_queue.drivers.sqlite.database import check_name, check_schema, explain
from wippy_queue.errors import Unavailable


def verify(file: str) -> None:
    """Raises Unavailable or Invalid, as opening the file would."""
    check_name(file)
    path = Path(file).absolute()
    folder = path.parent
    if not folder.is_dir():
        raise Unavailable(f"{file}: make the folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unavailable(f"{file}: give this user the right to write in the folder {folder}")
    try:
        path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"{file}: {error.strerror}; name another file") from None
    if not path.is_file():
        raise Unavailable(f"{file}: is no file; name another")
    if not os.access(path, os.R_OK | os.W_OK):
        raise Unavailable(f"{file}: give this user the right to read and write the file")
    # Without a log the file is all there is; SQLite would leave an empty log behind where it looks for one.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, isolation_level=None)
        try:
            check_schema(connection, file)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise explain(error, file) from error
