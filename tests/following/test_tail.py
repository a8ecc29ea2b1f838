"""The tail, between its end and its next beginning."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from redis_registry.roles.following.tail import Tail
from redis_registry.settings import RegistrySettings
from redis_registry.store.following import Overdue
from redis_registry.store.operations import Operations

THERE = Overdue(0, "e", 7, -1, 0, False, frozenset(), frozenset())


class Answering:
    """An executor that answers when the test says so."""

    spread, where = False, "here"

    def __init__(self) -> None:
        self.answers = asyncio.Queue[asyncio.Future[Overdue]]()

    async def run(self, operation: Any, deadline_secs: float | None = None) -> Any:
        if operation.__name__ == "join":
            return 1
        answer = asyncio.get_running_loop().create_future()
        await self.answers.put(answer)
        return await answer

    async def wait(self, command: Any) -> Any:
        return await asyncio.Event().wait()


class Nobody:
    """A follower that is told nothing of interest."""

    def take(self, entry: Any) -> None: ...
    def lost(self, partition: int, cause: str, seen: Any) -> None: ...
    def judge(self, partition: int, overdue: Overdue) -> None: ...


async def test_an_answer_that_comes_with_the_end_is_none_for_the_next_beginning(
    no_tasks_left: None,
) -> None:
    executor = Answering()
    tail = Tail(Operations(RegistrySettings(), actor="t"), cast("Any", executor))
    tail.add(Nobody())
    first = await executor.answers.get()
    first.set_result(THERE)  # and in the same moment:
    await tail.aclose()

    tail.add(Nobody())
    knowing = asyncio.ensure_future(tail.positioned())
    answer = await executor.answers.get()
    await asyncio.sleep(0)
    assert not knowing.done(), "nothing is known before the next answer"
    answer.set_result(THERE._replace(revision=9))
    assert await knowing == 1
    assert tail.places[0].revision == 9
    await tail.aclose()
