"""How all processes of the soak see the registry: everything short, so that much happens."""

from __future__ import annotations

from importlib import resources
from typing import Any

from redis_registry import GuardSettings, OutlierSettings
from redis_registry.model import Identity
from redis_registry.selection.keys import digest_of
from redis_registry.store import writers
from redis_registry.store.scripts import load
from redis_registry.wire import in_force
from redis_registry.wire.keys import identity_text

__all__ = [
    "ALLOCATOR",
    "CACHED",
    "MOST_PRESENT",
    "OPTIONS",
    "STAYING",
    "STAYS",
    "fill_caches",
    "passing",
]

STAYS = "stays"
"""The model whose instances live through all of it."""

STAYING = 40

MOST_PRESENT = 10_000
"""So many of those that come and go may be listed at once; then the worker waits."""

OPTIONS: dict[str, Any] = {
    "heartbeat_timeout_secs": 2.0,
    "heartbeat_interval_secs": 1.0,
    "forget_after_secs": 0.5,
    "events_kept": 5000,
    "operation_timeout_secs": 10.0,
    "socket_timeout_secs": 1.0,
    "reservation_ttl_secs": 2.0,
    # A model's instances mostly end all at once here: the guard trips all the time, and lets go.
    "guard": GuardSettings(share=0.9, window_secs=0.5, max_hold_secs=1.0),
    "outliers": OutlierSettings(
        base_ejection_secs=0.2, max_ejection_secs=1.0, probe_secs=0.5
    ),
}

CACHED = 20_000

ALLOCATOR = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""The C library's, in one arena: it gives free memory back by the page, where Python's own needs a
megabyte with nothing in it, and how many of those one peak leaves behind is luck. What is large is
mapped for itself, always (the bound would rise with each that is freed); and no thread keeps what
it has freed for its next need, which counts as in use (some 100 kB a thread)."""


MODEL_SIZE = 50


def passing(number: int) -> Identity:
    """Who comes and goes; each number is somebody else."""
    model = f"passing {number // MODEL_SIZE:08}"
    host = f"10.2.{number // 250 % 250}.{number % 250 + 1}"
    return Identity(model, host, 1024 + number % 50_000)


def fill_caches() -> None:
    """Have the caches at their bound from the start; that of 200,000 entries is lowered."""
    writers.MOST_BELIEFS = CACHED
    for number in range(65_536):
        identity = passing(-number - 1)
        identity_text(identity)
        digest_of(identity)
    for number in range(4096):
        in_force._matcher(passing(-number * MODEL_SIZE - 1).model_name)
    for script in resources.files("redis_registry.store").joinpath("lua").iterdir():
        if script.name.endswith(".lua"):
            load(script.name.removesuffix(".lua"))
