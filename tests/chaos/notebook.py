"""What a process of a run writes down: a line of JSON for each thing that it did or saw.

Times are of the machine's monotonic clock, in seconds: all processes of a run share it, and no
fault moves it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Note", "Notebook", "read_notes"]

Note = dict[str, Any]


class Notebook:
    """A file that only grows; safe in any thread.

    Args:
        path: The file.
        who: The process that writes.
    """

    def __init__(self, path: Path, who: str) -> None:
        self.path = path
        self.who = who
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, **more: object) -> None:
        """Note something; it is in the file when this returns, also if the process is killed next."""
        note = {"at": time.monotonic(), "who": self.who, "what": what, **more}
        os.write(self._file, json.dumps(note, ensure_ascii=True).encode() + b"\n")

    def close(self) -> None:
        """No more."""
        os.close(self._file)


def read_notes(path: Path) -> Iterator[Note]:
    """All notes of a file; a last one that was cut off by the process's death is left out."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)
