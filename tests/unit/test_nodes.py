"""Clients of a Cluster's nodes: those of nodes that left are closed, and no call under way is broken."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Disconnected

from redis_registry.store.driver.cluster import AsyncCluster, SyncCluster
from redis_registry.store.driver.nodes import Nodes
from tests.helpers import wait_for

OLD, NEW = ("old", 1), ("new", 2)


def test_a_client_goes_with_its_last_call_and_stays_when_its_node_is_back() -> None:
    nodes = Nodes(lambda host: f"client of {host[0]}")
    first, second = nodes.take((OLD, "")), nodes.take((OLD, ""))
    apart = nodes.take((OLD, "key"))
    assert first is second is not apart
    assert nodes.give_back(apart) == []
    assert nodes.keep(lambda host: host == NEW) == ["client of old"], "that of the key"
    assert nodes.give_back(first) == []
    assert nodes.give_back(second) == ["client of old"]

    again = nodes.take((OLD, ""))
    nodes.keep(lambda host: host == NEW)
    back = nodes.take((OLD, ""))
    assert nodes.give_back(again) == nodes.give_back(back) == []
    assert nodes.empty() == ["client of old"]
    assert nodes.empty() == []


class Fake:
    """A node of a Cluster whose slots are all at one address."""

    owner = OLD

    def __init__(self, host: tuple[str, int]) -> None:
        self.host = host
        self.closed = False

    def answer(self, command: str) -> Any:
        """The map, or whether it was closed; only to SLOW when it has left."""
        if command == "CLUSTER":
            return [[0, 16383, [self.owner[0].encode(), self.owner[1]]]]
        if command != "SLOW" and self.host != self.owner:
            raise Disconnected
        return self.closed


def test_threads_end_their_calls_at_a_node_that_left() -> None:
    made: list[Blocking] = []
    goes_on = threading.Event()

    class Blocking(Fake):
        def __init__(self, host: tuple[str, int]) -> None:
            super().__init__(host)
            made.append(self)
            self.waiting = False

        def execute_command(self, *words: Any) -> Any:
            if words[0] == "SLOW":
                self.waiting = True
                assert goes_on.wait(10)
            return self.answer(words[0])

        def close(self) -> None:
            self.closed = True

    def call() -> None:
        answers.append(cluster.execute_command("SLOW", "a"))

    answers: list[Any] = []
    cluster = SyncCluster([OLD], Blocking)
    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: bool(made) and made[0].waiting, "the call is under way")
    Blocking.owner = NEW
    with pytest.raises(Disconnected):
        cluster.execute_command("GET", "a")
    cluster.execute_command("GET", "a")
    assert not made[0].closed
    goes_on.set()
    thread.join()
    assert answers == [False]
    assert [(node.host, node.closed) for node in made] == [(OLD, True), (NEW, False)]
    cluster.close()


async def test_a_loop_ends_its_calls_at_a_node_that_left(no_tasks_left: None) -> None:
    made: list[Waiting] = []
    goes_on, waits = asyncio.Event(), asyncio.Event()

    class Waiting(Fake):
        def __init__(self, host: tuple[str, int]) -> None:
            super().__init__(host)
            made.append(self)

        async def execute_command(self, *words: Any) -> Any:
            if words[0] == "SLOW":
                waits.set()
                await goes_on.wait()
            return self.answer(words[0])

        async def aclose(self) -> None:
            self.closed = True
            raise Disconnected

    cluster = AsyncCluster([OLD], Waiting, apart=True)
    call = asyncio.create_task(cluster.execute_command("SLOW", "a"))
    await waits.wait()
    Waiting.owner = NEW
    with pytest.raises(Disconnected):
        await cluster.execute_command("GET", "a")
    await cluster.execute_command("GET", "a")
    asker, apart, *news = made
    assert (asker.closed, apart.closed) == (True, False)
    goes_on.set()
    assert await call is False
    assert apart.closed
    assert news
    assert not [node for node in news if node.closed]
