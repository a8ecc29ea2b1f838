"""The front door for threads: the same operations, blocking."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, overload

from redis_registry.core.explaining import (
    asked_for,
    explained_instance,
    explained_model,
)
from redis_registry.core.explanation import Explanation, ModelExplanation
from redis_registry.core.inputs import (
    actor,
    author_or_self,
    check_beats,
    checked,
    readable,
)
from redis_registry.core.orders import (
    Decision,
    clearing,
    decided,
    listed_aliases,
    listed_overrides,
)
from redis_registry.core.outcomes import IGNORED, Counts, decides, untold
from redis_registry.errors import NoneAvailable, RegistryError
from redis_registry.model import (
    Beat,
    Identity,
    Load,
    ModelInstance,
    Readiness,
    superseded,
)
from redis_registry.roles.following.hub import scope_of
from redis_registry.roles.following.loop_thread import LoopThread
from redis_registry.roles.following.sync import SyncView, SyncWatch
from redis_registry.roles.following.watch import BUFFER, Watch
from redis_registry.roles.reserving import (
    RELEASE_SECS,
    GiveCandidates,
    Reservation,
    Reserver,
    check_policy,
)
from redis_registry.roles.sending.announcing import SyncAnnouncement, new_life
from redis_registry.roles.sending.channel import RedisChannel
from redis_registry.roles.sending.life import HowToAnnounce
from redis_registry.roles.sending.senders import Senders
from redis_registry.settings import RegistrySettings
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import UNKNOWN, Operations
from redis_registry.store.replies import Outcome, Status
from redis_registry.store.sync_executor import SyncExecutor
from redis_registry.telemetry import DEAF, Telemetry
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override, Selector

__all__ = ["SyncModelRegistry"]


class SyncModelRegistry:
    """The registry for threads: the same operations, blocking; no checker.

    Args:
        settings: How it behaves; without it, from ``options`` and ``REDIS_REGISTRY_*``.
        telemetry: An observer of counts and durations.
        **options: Fields of :class:`~redis_registry.settings.RegistrySettings`.
    """

    def __init__(
        self,
        *,
        settings: RegistrySettings | None = None,
        telemetry: Telemetry = DEAF,
        **options: Any,
    ) -> None:
        self.settings = settings or RegistrySettings.of(**options)
        self.name = actor("sync")
        self._operations = Operations(
            self.settings, actor=self.name, telemetry=telemetry
        )
        self._executor = SyncExecutor(self.settings, telemetry=telemetry)
        self._reserver = Reserver(self._operations, self._executor, telemetry)
        self._counts = Counts()
        self._loop_thread = LoopThread(
            self._operations, lambda: AsyncExecutor(self.settings, telemetry=telemetry)
        )
        self._senders = Senders(
            RedisChannel(self.settings, self._executor, actor=self.name)
        )

    @classmethod
    def from_url(cls, url: str, *, telemetry: Telemetry = DEAF, **options: Any) -> Self:
        """Build one that connects to ``url``; see :meth:`RedisModelRegistry.from_url`."""
        return cls(telemetry=telemetry, url=url, **options)

    def __enter__(self) -> Self:
        self._executor.reopen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End views and watches, stop speaking for instances, tell what was counted, close."""
        self._loop_thread.close()
        self._reserver.holder.stop()
        self._senders.stop()
        if tallies := self._counts.take():
            try:
                self._executor.run(self._operations.report(tallies))
            except RegistryError as error:
                untold(tallies, error)
        self._executor.close()

    def register_instance(self, instance: ModelInstance) -> bool:
        """As :meth:`RedisModelRegistry.register_instance`."""
        self._executor.run(self._operations.register(checked(instance)))
        return True

    def deregister_instance(self, instance: ModelInstance) -> bool:
        """As :meth:`RedisModelRegistry.deregister_instance`."""
        checked(instance)
        remove = bool(instance.remove_from_registry)
        self._executor.run(self._operations.deregister(instance, remove=remove))
        return True

    def send_heartbeat(self, instance: ModelInstance) -> bool:
        """As :meth:`RedisModelRegistry.send_heartbeat`, without gathering."""
        (beat,) = self.send_heartbeats([checked(instance)])
        if beat is Beat.SUPERSEDED:
            raise superseded(instance)
        return True

    def send_heartbeats(
        self, instances: Sequence[ModelInstance], loads: Sequence[Load] = ()
    ) -> list[Beat]:
        """As :meth:`RedisModelRegistry.send_heartbeats`."""
        check_beats(instances, loads)
        return self._executor.run(self._operations.heartbeats(instances, loads))

    def set_readiness(
        self, instance: ModelInstance, readiness: Readiness, reason: str = ""
    ) -> bool:
        """As :meth:`RedisModelRegistry.set_readiness`."""
        operation = self._operations.ready(checked(instance), readiness, reason)
        return self._executor.run(operation) != UNKNOWN

    def get_all_instances(
        self, model_name: str, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """As :meth:`RedisModelRegistry.get_all_instances`."""
        name = readable(model_name)
        if name is None:
            return []
        return self._executor.run(
            self._operations.read(name, healthy_only=healthy_only)
        )

    def get_all_model_instances(
        self, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """As :meth:`RedisModelRegistry.get_all_model_instances`."""
        return self._executor.run(
            self._operations.read(None, healthy_only=healthy_only)
        )

    def select_one_health_instance(self, model_name: str) -> ModelInstance | None:
        """As :meth:`RedisModelRegistry.select_one_health_instance`."""
        name = readable(model_name)
        if name is None:
            return None
        return self._executor.run(self._operations.select(name))

    @overload
    def explain(self, what: str) -> ModelExplanation: ...
    @overload
    def explain(self, what: Identity | ModelInstance) -> Explanation: ...
    def explain(
        self, what: str | Identity | ModelInstance
    ) -> Explanation | ModelExplanation:
        """As :meth:`RedisModelRegistry.explain`."""
        name, identity = asked_for(what)
        found = self._executor.run(self._operations.explain(name, identity))
        if identity is None:
            return explained_model(found, self.settings)
        return explained_instance(found, self.settings)

    def report_failure(self, instance: ModelInstance, reason: str = "") -> Outcome:
        """As :meth:`RedisModelRegistry.report_failure`."""
        if not self.settings.outliers.enabled:
            return IGNORED
        tallies = self._counts.take_with_failure(checked(instance), reason)
        return self._executor.run(self._operations.report(tallies))[-1]

    def report_success(self, instance: ModelInstance) -> None:
        """As :meth:`RedisModelRegistry.report_success`; told by a later report, or by close."""
        if self.settings.outliers.enabled:
            self._counts.succeed(checked(instance))
            if decides(instance) or self._counts.due():
                self._executor.run(self._operations.report(self._counts.take()))

    def claim_probe(self, instance: ModelInstance) -> bool:
        """As :meth:`RedisModelRegistry.claim_probe`."""
        return self._executor.run(self._operations.claim_probe(checked(instance)))

    def announce(
        self, instance: ModelInstance, **how: Unpack[HowToAnnounce]
    ) -> SyncAnnouncement:
        """As :meth:`RedisModelRegistry.announce`."""
        timeout = self.settings.heartbeat_timeout_secs
        life = new_life(timeout, instance, how, urls=[self.settings.url])
        patience = self.settings.operation_timeout
        return SyncAnnouncement(life, self._senders.of(life), patience_secs=patience)

    def override(
        self,
        selector: Selector | Identity | ModelInstance,
        **decision: Unpack[Decision],
    ) -> Override:
        """As :meth:`RedisModelRegistry.override`."""
        made, expires_secs = decided(selector, decision)
        operation = self._operations.override(made, expires_secs=expires_secs)
        return self._executor.run(operation)

    def clear_override(
        self, name: str, *, author: str | None = None, reason: str = ""
    ) -> bool:
        """As :meth:`RedisModelRegistry.clear_override`."""
        operation = self._operations.clear_override(*clearing(name, author, reason))
        return self._executor.run(operation)

    def overrides(self) -> list[Override]:
        """As :meth:`RedisModelRegistry.overrides`."""
        return listed_overrides(self._executor.run(self._operations.orders()))

    def set_alias(
        self, alias: str, model_name: str, *, author: str | None = None
    ) -> Alias:
        """As :meth:`RedisModelRegistry.set_alias`."""
        who = author_or_self(author)
        made = Alias.of(alias=alias, model_name=model_name, author=who)
        return self._executor.run(self._operations.set_alias(made))

    def remove_alias(self, alias: str, *, author: str | None = None) -> bool:
        """As :meth:`RedisModelRegistry.remove_alias`."""
        operation = self._operations.remove_alias(*clearing(alias, author))
        return self._executor.run(operation)

    def aliases(self) -> list[Alias]:
        """As :meth:`RedisModelRegistry.aliases`."""
        return listed_aliases(self._executor.run(self._operations.orders()))

    def reserve(
        self,
        model_name: str,
        *,
        policy: str = "least_in_flight",
        wait_secs: float = 0.0,
        candidates: GiveCandidates | None = None,
    ) -> AbstractContextManager[Reservation]:
        """As :meth:`RedisModelRegistry.reserve`."""
        check_policy(policy)
        return self._reserved(model_name, policy, wait_secs, candidates)

    @contextmanager
    def _reserved(
        self,
        model_name: str,
        policy: str,
        wait_secs: float,
        candidates: GiveCandidates | None,
    ) -> Generator[Reservation]:
        made = self._take(model_name, policy, wait_secs, candidates)
        try:
            yield made
        finally:
            with suppress(RegistryError):  # the holder's thread goes on trying
                self._executor.run(
                    self._reserver.release(made), deadline_secs=RELEASE_SECS
                )

    def _take(
        self,
        model_name: str,
        policy: str,
        wait_secs: float,
        candidates: GiveCandidates | None,
    ) -> Reservation:
        name = readable(model_name)
        if name is None:
            msg = f"no instance can have the name {model_name!r:.60}"
            raise NoneAvailable(msg)
        until = time.monotonic() + wait_secs
        while True:
            try:
                return self._executor.run(
                    self._reserver.attempt(name, policy, candidates)
                )
            except NoneAvailable as none:
                pause = self._reserver.pause_secs(none, until - time.monotonic())
            time.sleep(pause)

    def in_flight(self, model_name: str) -> dict[Identity, int]:
        """As :meth:`RedisModelRegistry.in_flight`."""
        name = readable(model_name)
        return (
            {} if name is None else self._executor.run(self._operations.in_flight(name))
        )

    def watch(
        self,
        model_name: str | None = None,
        after: str | None = None,
        *,
        buffer: int = BUFFER,
    ) -> SyncWatch:
        """As :meth:`RedisModelRegistry.watch`; it follows in a thread of its own."""
        hub, scope = self._loop_thread.hub, scope_of(model_name)
        watch = Watch(hub, scope, after=after, buffer=buffer)
        return SyncWatch(self._loop_thread, watch)

    def view(
        self,
        models: str | Iterable[str] | None = None,
        *,
        snapshot_path: str | Path | None = None,
        wait_secs: float | None = None,
    ) -> SyncView:
        """As :meth:`RedisModelRegistry.view`; it follows in a thread of its own."""
        if wait_secs is None:
            wait_secs = self.settings.operation_timeout
        path = None if snapshot_path is None else Path(snapshot_path)
        scope = scope_of(models)
        return SyncView(self._loop_thread, scope, path=path, wait_secs=wait_secs)

    def status(self) -> list[Status]:
        """As :meth:`RedisModelRegistry.status`."""
        return self._executor.run(self._operations.status())
