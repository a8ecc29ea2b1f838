"""Views and watches for threads; what follows the changes runs in a thread of its own."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from redis_registry.core.events import Event
from redis_registry.roles.following.hub import Scope
from redis_registry.roles.following.loop_thread import LoopThread
from redis_registry.roles.following.view import ViewReads
from redis_registry.roles.following.watch import Watch

__all__ = ["SyncView", "SyncWatch"]


class SyncView(ViewReads):
    """A view for threads; open inside its ``with`` block.

    Args:
        thread: Where it follows.
        scope: Names of models; ``None``: all.
        path: Where to keep a copy for a cold start without Redis; ``None``: nowhere.
        wait_secs: How long entering waits for the first snapshot.
    """

    def __init__(
        self,
        thread: LoopThread,
        scope: Scope,
        *,
        path: Path | None,
        wait_secs: float,
    ) -> None:
        super().__init__(thread.hub, scope, path=path, wait_secs=wait_secs)
        self._thread = thread

    def __enter__(self) -> Self:
        self._thread.run(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.finish(self._close, of=self._hub)

    def ready(self, within_secs: float | None = None) -> None:
        """As :meth:`redis_registry.View.ready`, blocking."""
        self._thread.run(self._ready(within_secs), of=self._hub)


class SyncWatch:
    """A watch for threads: iterate it inside its ``with`` block.

    Args:
        thread: Where it follows.
        watch: What to iterate.
    """

    def __init__(self, thread: LoopThread, watch: Watch) -> None:
        self._thread = thread
        self._watch = watch

    @property
    def position(self) -> str | None:
        """As :attr:`redis_registry.Watch.position`."""
        return self._watch.position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event; it may be long in coming."""
        self._watch.check_open()
        return self._thread.run(self._watch.__anext__(), of=self._watch.hub)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._thread.finish(self._watch.aclose, of=self._watch.hub)
