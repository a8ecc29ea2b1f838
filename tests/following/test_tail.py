"""The tail, between its end and its next beginning."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from redis_registry.roles.following.tail import Lost, Place, Tail
from redis_registry.settings import RegistrySettings
from redis_registry.store.following import Entry, Overdue
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


class Failing(Nobody):
    """A follower that can't take anything in."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, str, Place]] = []

    def take(self, entry: Any) -> None:
        raise ValueError(entry)

    def lost(self, partition: int, cause: str, seen: Any) -> None:
        self.losses.append((partition, cause, seen))


class Taking(Nobody):
    """A follower that takes everything in."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def take(self, entry: Any) -> None:
        self.taken.append(entry.revision)


async def test_a_change_that_one_follower_cannot_take_in_reaches_the_others() -> None:
    """Say a decision of a newer release, which only views of that model look into."""
    tail = Tail(Operations(RegistrySettings(), actor="t"), cast("Any", Answering()))
    failing, taking = Failing(), Taking()
    tail._followers = [failing, taking]
    tail.places[0] = Place("e", 7)
    for revision in (8, 9):
        tail._take(Entry(0, revision, b"e|alias_set|x|y|0", b"new form"))
    assert taking.taken == [8, 9]
    there = [(0, Lost.UNREADABLE, Place("e", 8)), (0, Lost.UNREADABLE, Place("e", 9))]
    assert failing.losses == there
