"""What a process, and Redis, hold: numbers that must be after a soak what they were before."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import statistics
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, cast

from pydantic import BaseModel

from redis_registry.errors import EmbeddedServerError
from redis_registry.roles import reserving
from redis_registry.store.reserving import MOST_CANDIDATES
from redis_registry.testing import Standalone
from tests.soak.settings import CACHED

__all__ = [
    "Figures",
    "amiss",
    "held_by_process",
    "held_by_redis",
    "median",
    "rss_kb",
]

Figures = dict[str, float]
"""Names and numbers."""

SHARE = 0.02
"""By how much a figure may differ afterwards."""

OURS = ("redis_registry", "tests.soak")

_FLEETS = (
    2 * 2 * reserving.FEW
)  # of two registries; it may double before somebody looks
BOUNDED = {
    "Checker._guarded": 1,
    "Checker._terms": 1,  # the one who has the lease
    "CheckerStatus.leads": 1,
    "Fleet.identities": _FLEETS * MOST_CANDIDATES,
    "Fleet.instances": _FLEETS * MOST_CANDIDATES,
    "Fleet.limits": _FLEETS * MOST_CANDIDATES,
    "Fleet.reasons": _FLEETS,
    "Mending._ahead": 5
    + 10_000 // 50
    + 1,  # models that were there when the walk began
    "Operations._beliefs": CACHED,
    "Operations._epochs": CACHED,
    "Overrides._fitting": 4 * 65_536,
    "Reserver._fleets": _FLEETS,
    "RoundRobin._turns": 10 * 1000,
    "SyncView.resyncs": 6,  # causes
    "View.resyncs": 12,
}
"""Caches, with what they hold at most in one process: they fill up, and some are emptied then."""


def rss_kb(pid: int | str = "self") -> int:
    """The memory of a process that is in RAM."""
    found = Path(f"/proc/{pid}/status").read_text()
    return int(found.partition("VmRSS:")[2].split()[0])


def held_by_process(roots: Sequence[object]) -> Figures:
    """What this process holds, and how many entries each table in reach of ``roots`` has.

    Bounded caches are emptied first: their entries are other ones at each look, of other sizes.
    Room for entries that a table does not have is not counted: a dict keeps it until it next
    grows, and then takes three times what is in it at that moment (CPython's ``GROWTH_RATE``).
    What nobody refers to is let go of, and what the allocator keeps of that is given back to the
    system: what is left is in use, but for pages of which one object uses a part.
    """
    caches = _caches()
    while gc.collect():
        pass
    with contextlib.suppress(AttributeError):  # not the GNU library
        ctypes.CDLL(None).malloc_trim(0)
    found: Figures = {
        "RSS kB": rss_kb(),
        "bytes in use": _bytes_in_use(),
        "file descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }
    tables, spare = _tables(roots)
    found["bytes in use"] -= spare
    tables += caches
    return found | {name: float(size) for name, size in sorted(tables.items())}


_TOLD = [
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
]


class _Mallinfo(ctypes.Structure):
    """What ``mallinfo2`` of the GNU library tells (glibc 2.33 and later; malloc.h)."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _TOLD)


def _bytes_in_use() -> int:
    """What is allocated and not freed; members run with the C library's allocator alone."""
    tell = ctypes.CDLL(None).mallinfo2
    tell.restype = _Mallinfo
    told = tell()
    return told.uordblks + told.hblkhd


def _caches() -> Counter[str]:
    """Entries of the caches without a bound; those that have one are emptied."""
    found: Counter[str] = Counter()
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper) and _is_ours(one):
            cache = cast("Any", one)
            size = cache.cache_info()
            if size.maxsize is None:
                found[f"{cache.__name__} (cache)"] = size.currsize
            else:
                cache.cache_clear()
    return found


def _is_ours(one: Any) -> bool:
    return str(getattr(one, "__module__", "")).startswith(OURS)


def _tables(roots: Iterable[object]) -> tuple[Counter[str], int]:
    """Entries of all containers that can be reached through modules and objects of ours, by where.

    And the bytes of room in them that no entry takes.
    """
    sizes: Counter[str] = Counter()
    spare = 0
    seen: set[int] = set()
    kept: list[object] = []  # so that no address is used twice
    left = [*_of_modules(), *((root, "") for root in roots)]
    while left:
        one, where = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        if isinstance(one, MethodType):
            left.append((one.__self__, where))
        elif isinstance(one, (Mapping, list, tuple, set, frozenset, deque)):
            if not isinstance(one, (tuple, frozenset)):  # which don't grow
                sizes[where] += len(cast("Any", one))
                spare += _spare(cast("Any", one))
            left += [(entry, where) for entry in _entries(cast("Any", one))]
        elif _is_ours(type(one)) and not isinstance(one, BaseModel):
            name = type(one).__name__
            left += [(value, f"{name}.{key}") for key, value in _attributes(one)]
    return sizes, spare


def _of_modules() -> list[tuple[object, str]]:
    """What our modules keep beside constants, and where."""
    return [
        (value, f"{module}.{name}")
        for module in list(sys.modules)
        if module.startswith(OURS)
        for name, value in vars(sys.modules[module]).items()
        if isinstance(value, (dict, list, set, deque))
        and not (name.isupper() or name.startswith("__"))
    ]


def _spare(one: Any) -> int:
    """By how many bytes it is larger than a new one with as many entries."""
    entries: list[Any] = list(one)
    if isinstance(one, dict):
        return sys.getsizeof(cast("object", one)) - sys.getsizeof(
            dict.fromkeys(entries)
        )
    if isinstance(one, set):
        return sys.getsizeof(cast("object", one)) - sys.getsizeof(set(entries))
    return 0


def _entries(one: Any) -> list[Any]:
    return [*one.keys(), *one.values()] if isinstance(one, Mapping) else list(one)


def _attributes(one: object) -> list[tuple[str, object]]:
    found: dict[str, object] = dict(getattr(one, "__dict__", {}))
    for kind in type(one).__mro__:
        slots: Any = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name != "__weakref__" and hasattr(one, name):
                found[name] = getattr(one, name)
    return list(found.items())


def held_by_redis(server: Standalone) -> Figures:
    """What the server holds; and how long each stream is."""
    # Its notes of slow and of large calls are no data of ours; nor are its histograms of latency,
    # 30 kB for each command that was called since it started.
    for what in (
        ["CONFIG", "RESETSTAT"],
        ["SLOWLOG", "RESET"],
        ["COMMANDLOG", "RESET", "large-request"],
        ["COMMANDLOG", "RESET", "large-reply"],
    ):
        with contextlib.suppress(EmbeddedServerError):  # Redis has no COMMANDLOG
            server.call(*what)
    server.call("MEMORY", "PURGE")
    memory = server.info("memory")
    # Buffers have the size of what went through them last, or was not yet written.
    buffers = int(memory["mem_clients_normal"]) + int(memory["mem_aof_buffer"])
    found: Figures = {
        "used memory": float(memory["used_memory"]) - buffers,
        "used memory, data": float(memory["used_memory_dataset"]),
        "keys": float(cast("int", server.call("DBSIZE"))),
        "clients": float(server.info("clients")["connected_clients"]),
    }
    names = cast("list[str]", server.call("KEYS", "rr:*"))
    sizes = [server.call("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names]
    found["used memory, keys"] = float(sum(cast("list[int]", sizes)))
    streams = [name for name in names if name.endswith(":events")]
    return found | {
        f"length of {name}": float(cast("int", server.call("XLEN", name)))
        for name in sorted(streams)
    }


def median(looks: Sequence[Figures]) -> Figures:
    """Each figure's median; one that a look did not see was 0."""
    names = dict.fromkeys(name for look in looks for name in look)
    return {
        name: statistics.median(look.get(name, 0.0) for look in looks) for name in names
    }


def amiss(start: Figures, end: Figures) -> list[str]:
    """Names of the figures that did not come back to where they were."""
    return [
        name
        for name in sorted({*start, *end})
        if not _back(name, start.get(name, 0.0), end.get(name, 0.0))
    ]


def _back(name: str, start: float, end: float) -> bool:
    if name in BOUNDED:
        return end <= BOUNDED[name]
    if name == "RSS kB" and end < start:
        return True  # the allocator has given back more of the highest water
    return abs(end - start) <= SHARE * start
