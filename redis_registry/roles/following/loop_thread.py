"""An event loop in a thread: what follows the changes, for readers that have none."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from redis_registry.errors import RegistryClosed
from redis_registry.roles.following.hub import Hub
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["LoopThread"]

T = TypeVar("T")

_CLOSED = "the registry was closed, or this process is a fork of the one that opened this; open another"


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
        self._inherited: list[object] = []
        self._forget()
        _ALL.add(self)

    def _forget(self) -> None:
        """Nothing runs: at the beginning, when the process ends, and in a forked child."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}

    def forked(self) -> None:
        """The thread, its loop and its sockets are the parent's.

        They are kept, for collecting them would take the sockets out of the parent's selector.
        """
        self._inherited += [self._loop, self._hubs]
        self._forget()

    def hub(self) -> Hub:
        """The hub; to be asked for on the thread's loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._hubs:
            self._hubs[loop] = Hub(self._operations, self._make_executor())
        return self._hubs[loop]

    def _is_over(self, of: Hub | None) -> bool:
        """Whether what a hub followed has ended, though another thread may run by now."""
        here = None if self._loop is None else self._hubs.get(self._loop)
        return of is not None and of is not here

    def run(self, work: Coroutine[Any, Any, T], of: Hub | None = None) -> T:
        """Run something on the thread's loop and wait for its end.

        Interrupting the wait cancels it.

        Args:
            work: What to run.
            of: The hub that it belongs to; ``None``: to whichever there is, or will be.

        Raises:
            RegistryClosed: The registry was closed meanwhile, or since ``of`` was made; or a
                callback of a view called this, which would wait for its own thread.
        """
        with self._lock:
            try:
                future = self._given(work, of)
            except BaseException:
                work.close()
                raise
        return _result(future)

    def finish(
        self, work: Callable[[], Coroutine[Any, Any, None]], of: Hub | None
    ) -> None:
        """Run the end of a view or watch, unless that of its registry has come before.

        Args:
            work: Makes what to run.
            of: As for :meth:`run`.

        Raises:
            RegistryClosed: A callback of a view called this.
        """
        self._check_other_thread()
        with self._lock:
            if self._loop is None or self._is_over(of):
                return
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        with suppress(RegistryClosed):
            _result(future)

    def _given(self, work: Coroutine[Any, Any, T], of: Hub | None) -> Future[T]:
        """Begin what runs on the loop; under the lock, so that :meth:`close` comes after it."""
        self._check_other_thread()
        if self._is_over(of):
            raise RegistryClosed(_CLOSED)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="redis-registry views", daemon=True
            )
            self._thread.start()
            atexit.register(self._forget)  # else what is open then waits for ever
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_other_thread(self) -> None:
        if threading.current_thread() is self._thread:
            msg = "a callback of a view must not wait for its own thread"
            raise RegistryClosed(msg)

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
            atexit.unregister(self._forget)
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _end(self) -> None:
        hub = self._hubs.pop(asyncio.get_running_loop(), None)
        if hub is not None:
            await hub.aclose()
            await hub.executor.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # somebody waits for it in another thread
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # Here, for whoever closes may be on a running loop of its own.
        await asyncio.get_running_loop().shutdown_default_executor()


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError as error:
        raise RegistryClosed(_CLOSED) from error
    except BaseException:
        future.cancel()
        raise


def _forget_all() -> None:
    for thread in _ALL:
        thread.forked()


_ALL: weakref.WeakSet[LoopThread] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
