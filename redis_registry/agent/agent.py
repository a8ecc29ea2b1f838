"""The life of an agent: a server started or adopted, announced, watched, drained and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

from redis_registry.agent.checks import (
    NOT_HEALTHY,
    SUPERSEDED,
    check_host,
    check_port,
)
from redis_registry.agent.child import Child, find_command
from redis_registry.agent.gauges import Gauges, Loaded
from redis_registry.agent.probes import Fault, Probe, host_of, probe_of
from redis_registry.agent.signals import Signals, signals_of_the_process
from redis_registry.errors import AgentError, Superseded
from redis_registry.model import ModelInstance, Readiness
from redis_registry.roles.sending.announcing import Announcement
from redis_registry.roles.sending.life import HowToAnnounce

__all__ = ["AgentOptions", "run"]

STARTING_SECS = 0.5
DRAINING_SECS = 0.2
"""How often a server is asked while somebody waits for the answer."""

MARKED_SECS = 5.0

_log = logging.getLogger(__name__)


class Announces(Protocol):
    """A registry that an instance can be announced to."""

    def announce(
        self, instance: ModelInstance, **how: Unpack[HowToAnnounce]
    ) -> Announcement:
        """As :meth:`redis_registry.RedisModelRegistry.announce`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent treats its server.

    Attributes:
        health: The probe; see :func:`redis_registry.agent.probes.probe_of`.
        probe_interval_secs: From one probe to the next.
        probe_timeout_secs: Longest wait for its answer.
        failures: So many in a row make it not ready; nobody listening counts at once.
        startup_budget_secs: Not healthy within it: given up.
        metrics: URL of Prometheus metrics to read its load from; ``None``: none.
        gauges: Which of them.
        drain_timeout_secs: How long a drain waits for work in flight.
        settle_secs: How long a drain waits at least: for requests that are on their way.
        stop_timeout_secs: From asking the server to end to killing it.
        progress_timeout_secs: See :class:`redis_registry.roles.sending.life.LifeOptions`.
        any_address: See there.
    """

    health: str
    probe_interval_secs: float = 2.0
    probe_timeout_secs: float = 2.0
    failures: int = 2
    startup_budget_secs: float = 600.0
    metrics: str | None = None
    gauges: Gauges = Gauges()  # noqa: RUF009  it is frozen, so it may be shared
    drain_timeout_secs: float = 30.0
    settle_secs: float = 1.0
    stop_timeout_secs: float = 30.0
    progress_timeout_secs: float | None = None
    any_address: bool = False


async def run(
    registry: Announces,
    instance: ModelInstance,
    command: Sequence[str],
    options: AgentOptions,
) -> int:
    """Run a server as a registered worker until it ends, or a signal comes.

    Args:
        registry: Where to announce it.
        instance: Who it is.
        command: What to start; empty: a server that runs already is adopted.
        options: How to treat it.

    Returns:
        The exit code of the server; 0 for one that was adopted.

    Raises:
        AgentError: It can't be done; nothing is left registered.
        RegistryError: The instance or a setting is not acceptable.
    """
    probe = probe_of(options.health, options.probe_timeout_secs)
    await check_host(instance.host, "--host")
    await check_host(host_of(options.health), "--health")
    if command:
        find_command(command[0])
        check_port(instance.port)
    superseded = asyncio.Event()
    wake = asyncio.get_running_loop().call_soon_threadsafe
    announcement = registry.announce(
        instance,
        startup_budget_secs=options.startup_budget_secs,
        progress_timeout_secs=options.progress_timeout_secs,
        drain_timeout_secs=0.0,  # the agent itself waits, and knows for what
        any_address=options.any_address,
        on_superseded=lambda _: wake(superseded.set),
    )
    child = None
    try:
        async with AsyncExitStack() as stack:
            signals = stack.enter_context(signals_of_the_process())
            if command:
                child = await Child.start(command)
                stack.callback(child.kill)
            announced = await stack.enter_async_context(announcement)
            await _Agent(announced, child, probe, options).live(signals, superseded)
    except _Crashed:
        _log.error("child ended", extra={"exit_code": child and child.exit_code})
    return child.exit_code if child else 0


class _Crashed(Exception):
    """The server ended by itself: there is nothing to drain, so the announcement is left at once."""


@asynccontextmanager
async def _running(*waits: asyncio.Task[None]) -> AsyncGenerator[None]:
    """Tasks that don't outlive the block."""
    try:
        yield
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class _Agent:
    def __init__(
        self,
        announced: Announcement,
        child: Child | None,
        probe: Probe,
        options: AgentOptions,
    ) -> None:
        self._announced = announced
        self._child = child
        self._probe = probe
        self._options = options
        self._load = Loaded()
        self._unread = False
        self._was_ready = False

    async def live(self, signals: Signals, superseded: asyncio.Event) -> None:
        """Until the server ends, a signal comes, or a newer life has the address."""
        watch = asyncio.create_task(self._watch(), name="probes")
        others = [
            asyncio.create_task(self._child_ended(), name="child"),
            asyncio.create_task(_set(signals.drain), name="signal"),
            asyncio.create_task(_set(superseded), name="superseded"),
        ]
        async with _running(watch, *others):
            await asyncio.wait([watch, *others], return_when=asyncio.FIRST_COMPLETED)
        if self._child is None or self._child.running:
            await self._end(signals, superseded, watch)
            return
        if not self._was_ready:
            self._announced.forget()  # it never was a worker
        raise _Crashed

    async def _child_ended(self) -> None:
        if self._child is None:
            await asyncio.Event().wait()
        else:
            await self._child.ended()

    async def _end(
        self,
        signals: Signals,
        superseded: asyncio.Event,
        watch: asyncio.Task[None],
    ) -> None:
        """Stop the server; in order, unless it never was well."""
        failure = None if watch.cancelled() else watch.exception()
        if failure is None or isinstance(failure, Superseded):
            await self._drain(signals)
        if self._child is not None:
            await self._stop(self._child, signals)
        if superseded.is_set() or isinstance(failure, Superseded):
            msg = (
                f"{self._announced.instance.identity}: a newer agent or worker has taken the "
                "address; this one has ended"
            )
            raise AgentError(msg, SUPERSEDED)
        if failure is not None:
            self._announced.forget()
            raise failure

    async def _watch(self) -> None:
        """Probe after probe; ends only by an error that ends the agent."""
        ready, failures = False, 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            fault = await self._ask()
            await self._read_load()
            failures = failures + 1 if fault else 0
            if fault is None and not ready:
                ready = self._was_ready = True
                _log.info(
                    "healthy: ready",
                    extra={"after_secs": round(loop.time() - began, 1)},
                )
                await self._announced.ready()
            elif fault and ready and (fault.hard or failures >= self._options.failures):
                ready = False
                began = loop.time()
                _log.warning("not healthy: not ready", extra={"why": fault.why})
                await self._announced.not_ready(fault.why)
            elif fault and not self._was_ready:
                await self._starting(fault, loop.time() - began)
            secs = self._options.probe_interval_secs
            await asyncio.sleep(secs if ready else min(secs, STARTING_SECS))

    async def _starting(self, fault: Fault, secs: float) -> None:
        """Patience, as long as the startup budget lasts."""
        _log.debug("not healthy yet", extra={"why": fault.why})
        budget = self._options.startup_budget_secs
        if secs < budget:
            return
        with contextlib.suppress(TimeoutError):  # the event is worth a short wait
            async with asyncio.timeout(MARKED_SECS):
                while self._announced.readiness is not Readiness.FAILED:  # noqa: ASYNC110  a thread sets it
                    await asyncio.sleep(0.01)
        msg = (
            f"--health: {fault.why}, for {budget:g} s; look at the server's output, at the probe, "
            "or allow more by --startup-budget-secs"
        )
        raise AgentError(msg, NOT_HEALTHY)

    async def _ask(self) -> Fault | None:
        try:
            return await self._probe()
        except Exception as error:  # noqa: BLE001  a bug of ours must not end the server
            _log.exception("probe failed")
            return Fault(f"probe failed: {error}")

    async def _read_load(self) -> None:
        """Report what the metrics say; a page that can't be read is told once."""
        url = self._options.metrics
        if url is None:
            return
        try:
            load = await self._options.gauges.at(url, self._options.probe_timeout_secs)
        except Exception as error:  # noqa: BLE001  whatever a page holds, the server lives on
            if not self._unread and self._was_ready:
                self._unread = True
                self._announced.report()  # unknown is not what it was
                _log.warning(
                    "can't read the metrics", extra={"url": url, "why": repr(error)}
                )
            return
        self._unread = False
        if load.done != self._load.done:
            self._announced.progress()
        self._load = load
        more: dict[str, Any] = {}
        if load.kv_cache is not None:
            more["kv_cache"] = load.kv_cache
        self._announced.report(in_flight=load.in_flight, queued=load.queued, **more)

    async def _drain(self, signals: Signals) -> None:
        """No new work; wait for what is under way, as far as anybody knows of it."""
        with contextlib.suppress(Superseded):
            await self._announced.drain(timeout_secs=0)
        loop = asyncio.get_running_loop()
        began, told = loop.time(), -1
        enough = asyncio.create_task(self._enough(signals), name="no more patience")
        async with _running(enough):
            while not enough.done():
                await self._read_load()
                left, secs = self._load.left, loop.time() - began
                if left != told:
                    told = left
                    _log.info("draining", extra={"in_flight": left})
                if secs >= self._options.settle_secs and not left:
                    return
                if secs >= max(
                    self._options.drain_timeout_secs, self._options.settle_secs
                ):
                    _log.warning(
                        "work in flight is given up", extra={"in_flight": left}
                    )
                    return
                await asyncio.wait([enough], timeout=DRAINING_SECS)

    async def _enough(self, signals: Signals) -> None:
        """Until there is nothing to wait for: it is to stop now, or has ended by itself."""
        stop = asyncio.create_task(_set(signals.stop))
        ended = asyncio.create_task(self._child_ended())
        async with _running(stop, ended):
            await asyncio.wait([stop, ended], return_when=asyncio.FIRST_COMPLETED)

    async def _stop(self, child: Child, signals: Signals) -> None:
        kill = asyncio.create_task(_set(signals.kill))
        stop = asyncio.create_task(child.stop(self._options.stop_timeout_secs))
        async with _running(kill):
            await asyncio.wait([kill, stop], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                child.kill()
            await stop


async def _set(event: asyncio.Event) -> None:
    await event.wait()
