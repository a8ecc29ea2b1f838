"""An event loop in a thread: what follows the changes, for readers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from redis_registry.errors import RegistryClosed
from redis_registry.roles.following.hub import Hub
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Follows changes in a thread of its own, begun by the first call.

    Args:
        operations: What to run.
        executor: Makes the executor for the thread's loop.
    """

    def __init__(
        self, operations: Operations, executor: Callable[[], AsyncExecutor]
    ) -> None:
        self._operations = operations
        self._make_executor = executor
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._hub: Hub | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._loop is not None

    def hub(self) -> Hub:
        """The hub; to be asked for on the thread's loop."""
        if self._hub is None:
            self._hub = Hub(self._operations, self._make_executor())
        return self._hub

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the thread's loop and wait for its end.

        Interrupting the wait cancels it.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._begun())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever,
                    name="redis-registry views",
                    daemon=True,
                )
                self._thread.start()
            elif threading.current_thread() is self._thread:
                msg = "a callback of a view must not wait for its own thread"
                raise RegistryClosed(msg)
            return self._loop

    def close(self) -> None:
        """End the views and watches, and the thread.

        Raises:
            RegistryClosed: It was called from a view's callback, which runs in that thread.
        """
        if threading.current_thread() is self._thread:
            msg = "close the registry from another thread than its views' own"
            raise RegistryClosed(msg)
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    async def _end(self) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.aclose()
            await hub.executor.aclose()
