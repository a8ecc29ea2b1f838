"""What those who call the instances tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis_registry.core.inputs import checked
from redis_registry.core.outcomes import IGNORED, Reporter
from redis_registry.model import ModelInstance
from redis_registry.registry.base import Base
from redis_registry.store.outliers import Tally
from redis_registry.store.replies import Outcome

__all__ = ["OutcomeSide", "Tally"]


class OutcomeSide(Base):
    """Report how calls ended, claim a probe."""

    _reporter: Reporter | None = None

    async def report_failure(
        self, instance: ModelInstance, reason: str = ""
    ) -> Outcome:
        """Say that a call to an instance failed through its fault.

        A refused connection, a timeout, a 5xx or a broken answer is; an error that the caller
        caused (a 4xx), or a call that was cancelled, is not. Enough failures keep it out of
        selection for a while, on all replicas: see ``docs/how-to/failures.md``.

        Args:
            instance: As it was chosen; its ``incarnation`` says of which life it is told.
            reason: Why, in plain words, for the event; at most 100 characters are kept.

        Returns:
            What it has led to.

        Raises:
            InvalidInstance: Not an instance.
            RegistryUnavailable: Redis did not answer in time.
        """
        checked(instance)
        if not self.settings.outliers.enabled:
            return IGNORED
        return await self._reports().failed(instance, reason)

    async def report_success(self, instance: ModelInstance) -> None:
        """Say that a call ended well: nearly free, and told within half a second.

        Only of an instance that is held out (chosen for a probe) it is told, and awaited, at once.

        Args:
            instance: As it was chosen.

        Raises:
            InvalidInstance: Not an instance.
            RegistryUnavailable: It is held out, and Redis did not answer in time.
        """
        if not isinstance(instance, ModelInstance):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without a type checker
            checked(instance)
        if self.settings.outliers.enabled:
            future = self._reports().succeeded(instance)
            if future is not None:
                await future

    async def report_outcomes(
        self,
        tallies: Sequence[Tally],
        *,
        operation: str | None = None,
        deadline_secs: float | None = None,
    ) -> list[Outcome]:
        """Tell of many calls to many instances at once, for those who count by themselves.

        Args:
            tallies: How the calls ended.
            operation: A name for this report: repeated within 30 s, it counts once.
            deadline_secs: Longest wait; ``None``: the settings'.

        Returns:
            What each has led to, in order.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        if not self.settings.outliers.enabled:
            return [IGNORED] * len(tallies)
        self._bind()
        return await self._executor.run(
            self._operations.report(tallies, operation), deadline_secs=deadline_secs
        )

    async def claim_probe(self, instance: ModelInstance) -> bool:
        """Ask for the one probe of an instance that was ejected and has served its time.

        ``select_one_health_instance`` does so by itself. Report how the call ended, by the same
        registry object; a claim ends by itself after ``outliers.probe_secs``.

        Returns:
            Whether it was granted: to one caller of all replicas.

        Raises:
            InvalidInstance: Not an instance.
            RegistryUnavailable: Redis did not answer in time.
        """
        operation = self._operations.claim_probe(checked(instance))
        self._bind()
        return await self._executor.run(operation)

    def _reports(self) -> Reporter:
        reporter = self._reporter
        if reporter is None or reporter.loop is not asyncio.get_running_loop():
            self._bind()
            reporter = self._reporter = Reporter(self._tell)
        return reporter

    async def _tell(self, tallies: Sequence[Tally]) -> list[Outcome]:
        return await self._executor.run(self._operations.report(tallies))

    async def aclose(self) -> None:
        """As :meth:`Base.aclose`; what was counted is told first."""
        reporter, self._reporter = self._reporter, None
        if reporter is not None and reporter.loop is asyncio.get_running_loop():
            await reporter.aclose()
        await super().aclose()
