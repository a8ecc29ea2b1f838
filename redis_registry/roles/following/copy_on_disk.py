"""A view's copy in a file, for a start while Redis is away.

It is written beside the old one and put in its place in one step, so that there is always a whole
one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]  it ships none

from redis_registry.core.orders import orders_written, written_orders
from redis_registry.store.replies import Orders

__all__ = ["DiskCopy", "Saved", "load", "save"]

FORMAT = 1

COPY_SECS = 5.0
"""How often it is written, at most."""

_log = logging.getLogger(__name__)

# msgpack ships no types.
_pack = cast("Any", msgpack.packb)  # pyright: ignore[reportUnknownMemberType]  as above
_unpack = cast("Any", msgpack.unpackb)  # pyright: ignore[reportUnknownMemberType]  as above


class Saved(NamedTuple):
    """What was in the file.

    Attributes:
        rows: Of each partition.
        age_secs: Since when they may be out of date, by this host's clock.
        orders: What operators had decided, of each partition.
    """

    rows: Mapping[int, Sequence[bytes]]
    age_secs: float
    orders: Mapping[int, Orders] = {}


def save(path: Path, namespace: str, saved: Saved) -> None:
    """Write a copy.

    Args:
        path: Where; its directory is made if need be.
        namespace: Whose.
        saved: What to write.

    Raises:
        OSError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    true_at = time.time() - saved.age_secs  # noqa: TID251  another process will read it
    content = {
        "format": FORMAT,
        "namespace": namespace,
        "true_at": true_at,
        "rows": dict(saved.rows),
        "orders": {home: written_orders(one) for home, one in saved.orders.items()},
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_pack(content))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path, namespace: str) -> Saved | None:
    """Read a copy; ``None`` when there is none of use, and the log says why.

    Args:
        path: Where.
        namespace: Whose it must be.
    """
    try:
        content = _unpack(path.read_bytes(), strict_map_key=False)
        found = (content["format"], content["namespace"])
        if found != (FORMAT, namespace):
            _log.warning(
                "the view's snapshot is of another format or namespace, not used",
                extra={"path": str(path), "found": str(found)[:120]},
            )
            return None
        told, decided = content["rows"], content.get("orders", {})
        rows = {int(home): list(told.get(home, ())) for home in {**told, **decided}}
        orders = {home: orders_written(*decided.get(home, ((), ()))) for home in rows}
        age_secs = time.time() - float(content["true_at"])  # noqa: TID251  as above
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, msgpack.UnpackException):
        _log.warning(
            "the view's snapshot can't be read, not used",
            extra={"path": str(path)},
            exc_info=True,
        )
        return None
    return Saved(rows, max(0.0, age_secs), orders)


class DiskCopy:
    """Shows what is on disk until there is better, and from then on writes what changes.

    Args:
        path: Where.
        namespace: Whose.
        show: Takes what was found on disk.
        content: Gives what to write, with something that tells it from what was written before;
            ``None``: nothing worth writing.
    """

    def __init__(
        self,
        path: Path,
        namespace: str,
        show: Callable[[Saved], None],
        content: Callable[[], tuple[object, Saved] | None],
    ) -> None:
        self._path = path
        self._namespace = namespace
        self._show = show
        self._content = content
        self._written: object = None

    async def run(self) -> None:
        """Read once, then write for ever."""
        saved = await asyncio.to_thread(load, self._path, self._namespace)
        if saved is not None:
            self._show(saved)
        while True:
            await asyncio.sleep(COPY_SECS)
            await self.write()

    async def write(self) -> None:
        """Write, if there is news; a failure is told and not raised."""
        content = self._content()
        if content is None or content[0] == self._written:
            return
        try:
            await asyncio.to_thread(save, self._path, self._namespace, content[1])
        except OSError as error:
            _log.warning(
                "can't write the view's snapshot, trying again",
                extra={"path": str(self._path), "why": str(error)},
            )
        else:
            self._written = content[0]
