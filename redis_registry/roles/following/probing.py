"""Probes for those who choose from memory: who was ejected and has served its time.

Exactly one call of all replicas may try such an instance; Redis grants it. A choice can't wait for
that, so it asks in the background, and the instance is handed out at one of the next choices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from random import random

from redis_registry.core.rows import Snapshot
from redis_registry.errors import RegistryError
from redis_registry.model import Identity, ModelInstance
from redis_registry.selection import Candidates, awaits_probe
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Probing"]

_log = logging.getLogger(__name__)


def _awaiting(candidates: Candidates) -> tuple[ModelInstance, ...]:
    return tuple(item for item in candidates.instances if awaits_probe(item))


class Probing:
    """Claims probes, one an instance at a time, for as long as somebody chooses.

    Args:
        operations: How to claim; of the same registry object as the reports, for only the
            claimer's failure ends a probe.
        executor: How to run that.

    Attributes:
        granted: What was granted and not handed out yet, with the end of the claim
            (``time.monotonic``).
    """

    def __init__(self, operations: Operations, executor: AsyncExecutor) -> None:
        self._operations = operations
        self._executor = executor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking: dict[Identity, asyncio.Task[None] | None] = {}
        self.granted: dict[Identity, tuple[float, ModelInstance]] = {}

    def open(self) -> None:
        """Allow it to ask, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def draw(self, snapshot: Snapshot) -> ModelInstance | None:
        """An instance whose probe was granted, to be called now; mostly ``None``.

        One that waits for its probe is asked for as often as it would be chosen. From any thread.
        """
        name, now = snapshot.model_name, time.monotonic()
        for identity, (ends, instance) in list(self.granted.items()):
            late = now >= ends
            if late or name == identity.model_name or name in instance.serves:
                drawn = self.granted.pop(identity, None)
                if drawn is not None and not late:
                    return instance  # else another thread was faster
        candidates = snapshot.candidates
        due = candidates.keep("awaiting", _awaiting)
        if due:
            place = int(random() * (len(due) + len(candidates.able)))  # noqa: S311
            if place < len(due):
                self._want(due[place])
        return None

    def _want(self, instance: ModelInstance) -> None:
        loop, identity = self._loop, instance.identity
        if loop is not None and identity not in self._asking:
            self._asking[identity] = None
            loop.call_soon_threadsafe(self._begin, instance)

    def _begin(self, instance: ModelInstance) -> None:
        if self._loop is not None:
            self._asking[instance.identity] = self._loop.create_task(
                self._ask(instance), name="redis-registry probe"
            )

    async def _ask(self, instance: ModelInstance) -> None:
        try:
            ends = time.monotonic() + self._operations.settings.outliers.probe_secs
            if await self._executor.run(self._operations.claim_probe(instance)):
                self.granted[instance.identity] = ends, instance
        except RegistryError:
            pass  # the tail tells of it
        except Exception:  # noqa: BLE001  another choice asks again
            _log.exception("claiming a probe failed")
        finally:
            self._asking.pop(instance.identity, None)

    async def aclose(self) -> None:
        """Stop; what was granted and not handed out ends by itself."""
        self._loop = None
        tasks = [task for task in self._asking.values() if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
