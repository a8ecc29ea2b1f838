"""The flips of one sweep: bounded calls, under the guard's eyes or two at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from redis_registry.store.operations import Operation, Operations, Term

__all__ = ["Flipping", "model_of"]

LANES = 2
"""Calls under way at once without the guard: this process prepares one while Redis works on
the other, and nobody else waits for more than two of them."""

_log = logging.getLogger(__name__)


def model_of(member: str) -> str:
    """The (escaped) model of a member or identity."""
    return member.split(":", 1)[0]


class Flipping:
    """Flips what one sweep has found overdue.

    Args:
        term: The right to do so.
        members: All that is overdue.
        guarded: Scopes with an entry in the guard: they are judged in any case.
        operations: What to run.
        ask: How to run it.

    Attributes:
        flipped: How many were flipped.
        held: Models of which the guard held some back.
        overdue: How many of each scope still wait, ``*`` for all.
    """

    def __init__(
        self,
        term: Term,
        members: Sequence[str],
        guarded: Sequence[str],
        *,
        operations: Operations,
        ask: Callable[[Operation[str]], Awaitable[str]],
    ) -> None:
        self.flipped = 0
        self.held: set[str] = set()
        self.overdue: Counter[str] = Counter(map(model_of, members))
        self.overdue["*"] = len(members)
        self._term = term
        self._members = members
        self._place = 0
        self._operations = operations
        self._ask = ask
        self._chunk = operations.settings.sweep_chunk
        self._guard = operations.settings.guard.enabled
        self._judge = set(guarded)

    async def run(self) -> None:
        """Flip them all, or as many as the guard lets through.

        Raises:
            LeaseLost: Another checker holds the lease; what is left is its business.
        """
        if self._guard:
            await (
                self._work()
            )  # one after the other: each call counts on the one before
            return
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(LANES):
                    group.create_task(self._work())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several.exceptions[0].__cause__

    async def _work(self) -> None:
        while self._place < len(self._members) or self._judge:
            chunk = self._members[self._place : self._place + self._chunk]
            self._place += self._chunk
            if self.held:
                chunk = [
                    member for member in chunk if model_of(member) not in self.held
                ]
            scopes = self._scopes(chunk)
            if chunk or scopes:
                letters = await self._ask(
                    self._operations.flip(self._term, chunk, scopes)
                )
                self._account(chunk, letters)

    def _scopes(self, chunk: Sequence[str]) -> dict[str, int]:
        """What the guard must judge for this chunk, with the overdue of each."""
        if not self._guard:
            return {}
        judged = self._judge | set(map(model_of, chunk))
        self._judge = set[str]()
        if judged:
            judged.add("*")
        return {scope: self.overdue[scope] for scope in sorted(judged)}

    def _account(self, chunk: Sequence[str], letters: str) -> None:
        told = _log.isEnabledFor(logging.INFO)
        self.flipped += letters.count("f")
        for member, letter in zip(chunk, letters, strict=True):
            model = model_of(member)
            if letter == "h":
                self.held.add(model)
                continue
            self.overdue[model] -= 1
            self.overdue["*"] -= 1
            if letter == "f" and told:
                _log.info(
                    "instance unhealthy: heartbeat missing",
                    extra={"instance": member.rsplit(":", 2)[0]},
                )
            elif letter == "o":
                _log.warning("orphan deadline removed", extra={"member": member})
