"""What instances report of their work, read again and again for those who choose by it.

Reports are no changes and write no events: a heartbeat brings one every few seconds.
"""

from __future__ import annotations

import asyncio
import logging

from redis_registry.core.mirror import Mirror
from redis_registry.errors import RegistryError
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Loads"]

LOADS_SECS = 1.0
"""How often they are read."""

_log = logging.getLogger(__name__)


class Loads:
    """Keeps the loads in a mirror fresh, of the models for which somebody wants it.

    Args:
        mirror: Where they go.
        operations: How to read them.
        executor: How to run that.

    Attributes:
        wanted: Names that find these models' instances.
    """

    def __init__(
        self, mirror: Mirror, operations: Operations, executor: AsyncExecutor
    ) -> None:
        self.wanted: set[str] = set()
        self._mirror = mirror
        self._operations = operations
        self._executor = executor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Allow it to begin, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def want(self, name: str) -> None:
        """Begin with the models whose instances a name finds; from any thread."""
        self.wanted.add(name)
        if self._loop is not None and self._task is None:
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._task is None and self._loop is not None:
            self._task = self._loop.create_task(
                self._run(), name="redis-registry loads"
            )

    async def _run(self) -> None:
        while True:
            models: set[str] = set()
            for name in list(self.wanted):
                behind = self._mirror.behind(name)
                models.update(behind)
                if not behind:  # gone, or never there; who chooses by it again says so
                    self.wanted.discard(name)
            # At once: one whose server is away keeps nobody else's waiting.
            await asyncio.gather(*map(self._read, models))
            await asyncio.sleep(LOADS_SECS)

    async def _read(self, model_name: str) -> None:
        try:
            loads = await self._executor.run(
                self._operations.loads(model_name), deadline_secs=LOADS_SECS
            )
            self._mirror.report(model_name, loads)
        except RegistryError:
            pass  # the tail tells of it; the loads stay as they are
        except Exception:  # noqa: BLE001  views go on with the loads they have
            _log.exception("reading loads failed, trying again")

    async def aclose(self) -> None:
        """Stop."""
        self._loop = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
