"""What readers ask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from redis_registry.core.inputs import readable
from redis_registry.model import ModelInstance
from redis_registry.registry.base import Base
from redis_registry.roles.following.hub import scope_of
from redis_registry.roles.following.view import View
from redis_registry.roles.following.watch import BUFFER, Watch

__all__ = ["ReaderSide"]


class ReaderSide(Base):
    """Read, select."""

    async def get_all_instances(
        self, model_name: str, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """All instances of one model, in order of registration.

        Each is judged by its deadline at this moment, so a dead one is not healthy between two
        sweeps. Disabled ones are included.

        Args:
            model_name: Exact name; an unknown one has no instances.
            healthy_only: Leave out the unhealthy.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return []
        return await self._executor.run(
            self._operations.read(name, healthy_only=healthy_only)
        )

    async def get_all_model_instances(
        self, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """All instances of all models; see :meth:`get_all_instances`."""
        self._bind()
        return await self._executor.run(
            self._operations.read(None, healthy_only=healthy_only)
        )

    async def select_one_health_instance(self, model_name: str) -> ModelInstance | None:
        """One instance that may take work, uniformly at random; ``None`` if there is none.

        That is: healthy, enabled, ready, of a weight above 0 and not held out. One that was
        ejected and has served its time is chosen as any other, for exactly one probe over all
        replicas: its ``held_out`` is set then, and how the call ended must be reported. When there
        is no other, one that is only held out: a model's last instances never are.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return None
        return await self._executor.run(self._operations.select(name))

    def watch(
        self,
        model_name: str | None = None,
        after: str | None = None,
        *,
        buffer: int = BUFFER,
    ) -> Watch:
        """Follow every change, in order.

        Without ``after`` it begins with an event of kind ``resync`` that carries all there is;
        with it, with the first change after that. Wherever changes can't be told one by one any
        more (the stream was trimmed past them, Redis was restarted or failed over, the consumer
        was too slow) comes another resync, which says why. Heartbeats are no changes. All
        watches and views of an event loop share one connection.

        Example:
            >>> async with registry.watch("glm@llm") as watch:
            ...     async for event in watch:
            ...         print(event.revision, event.kind, event.instance)

        Args:
            model_name: Only what concerns this model; ``None``: everything.
            after: Where to go on: what an earlier watch's ``position`` said.
            buffer: How many events may wait; a slower consumer gets a resync.

        Raises:
            ConfigurationError: ``after`` is no position.
            InvalidInstance: There can't be a model of that name.
        """
        scope = scope_of(model_name)
        return Watch(self._hub, scope, after=after, buffer=buffer)

    def view(
        self,
        models: str | Iterable[str] | None = None,
        *,
        snapshot_path: str | Path | None = None,
        wait_secs: float | None = None,
    ) -> View:
        """Keep a copy of all instances, or of some models', and answer from memory.

        Entering waits until it has read what there is; from then on it follows every change, and
        goes on answering while Redis is away.

        Example:
            >>> async with registry.view() as view:
            ...     instance = view.select("glm@llm")

        Args:
            models: Names; ``None``: all.
            snapshot_path: A file to keep a copy in, for a start while Redis is away.
            wait_secs: How long entering waits for something to show; ``None``: the settings'
                deadline of an operation; 0: not at all.

        Raises:
            InvalidInstance: There can't be a model of such a name.
        """
        if wait_secs is None:
            wait_secs = self.settings.operation_timeout
        path = None if snapshot_path is None else Path(snapshot_path)
        return View(self._hub, scope_of(models), path=path, wait_secs=wait_secs)

    def sync_get_all_instances(
        self, model_name: str, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """As :meth:`get_all_instances`, for threads and for code inside a running loop.

        It blocks the calling thread for one round trip.
        """
        name = readable(model_name)
        if name is None:
            return []
        return self._sync_executor.run(
            self._operations.read(name, healthy_only=healthy_only)
        )
