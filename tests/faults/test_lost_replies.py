"""Replies that never come, and callers that don't wait for them: one effect, the right answers, no leaks."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from redis_registry import Kind, Readiness, RedisModelRegistry
from redis_registry.testing import Proxy
from tests.conftest import SLOW, Bench, Server
from tests.helpers import instance, instances

LIFE = instance(incarnation="1", readiness=Readiness.STARTING)
Step = Callable[[RedisModelRegistry], Awaitable[object]]


async def reserve(registry: RedisModelRegistry) -> object:
    async with registry.reserve("glm@llm") as made:
        return made


def beat_of_unknown(registry: RedisModelRegistry) -> Awaitable[object]:
    return registry.send_heartbeat(instance(2))


STEPS: list[tuple[str, Step, list[str]]] = [
    ("register", lambda r: r.register_instance(LIFE), ["registered"]),
    ("ready", lambda r: r.set_readiness(LIFE, Readiness.READY), ["ready"]),
    ("beat", lambda r: r.send_heartbeat(LIFE), []),
    ("beat of one unknown", beat_of_unknown, ["registered"]),
    ("override", lambda r: r.override(LIFE, weight=2, reason="x"), ["overridden"]),
    ("alias", lambda r: r.set_alias("prod", "glm@llm"), ["alias_set"]),
    ("reserve", reserve, []),
    ("drain", lambda r: r.set_readiness(LIFE, Readiness.DRAINING), ["draining"]),
    ("deregister", lambda r: r.deregister_instance(LIFE), ["deregistered"]),
    ("remove", lambda r: r.deregister_instance(
        instance(2, remove_from_registry=True)), ["removed"]),
]  # fmt: skip


@pytest.mark.parametrize("losses", [1, 3])
async def test_whatever_reply_is_lost_the_call_has_the_effect_of_one(
    server: Server, no_tasks_left: None, losses: int
) -> None:
    with Proxy(server.process.port) as proxy:
        async with RedisModelRegistry.from_url(
            proxy.url, run_checker=False, **SLOW
        ) as registry:
            await registry.status()
            for name, step, kinds in STEPS:
                before = server.raw.xinfo_stream(server.store.key("events"))
                cuts = proxy.cuts
                proxy.lose_replies(losses)
                await step(registry)
                assert proxy.cuts >= cuts + losses, f"{name}: its reply was lost"
                told = [str(e.kind) for e in server.store.events()]
                assert told[before["length"] :] == kinds, name
            flights = await registry.in_flight("glm@llm")
            assert set(flights.values()) == {0}


async def test_a_flip_whose_reply_is_lost_is_one_event(
    server: Server, no_tasks_left: None
) -> None:
    with Proxy(server.process.port) as proxy:
        async with RedisModelRegistry.from_url(
            proxy.url, run_checker=False, **SLOW
        ) as registry:
            bench = Bench(registry, server)
            await registry.send_heartbeats(instances(5))
            checker = await bench.sweep()
            bench.store.silence(*instances(5))
            seen = await checker._ask(0, 0)
            proxy.lose_replies(2)
            await checker._flip(checker._terms[0], seen[0])
    assert len(bench.store.events(Kind.UNHEALTHY)) == 5


class Storm:
    """Calls that are given up at any moment of a slow round trip, often twice."""

    def __init__(self, registry: RedisModelRegistry) -> None:
        self.registry = registry
        self.rng = random.Random(35)
        self.ended: Counter[str] = Counter()

    async def one(self, number: int) -> None:
        """A read, or a registration, whose answer must be its own."""
        model, item = f"m{number % 4}", instance(number + 1, f"w{number}")
        writes = number % 3 == 0
        call = (
            self.registry.register_instance(item)
            if writes
            else self.registry.get_all_instances(model)
        )
        task: asyncio.Task[Any] = asyncio.create_task(call)
        await asyncio.sleep(self.rng.uniform(0, 0.012))
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            task.cancel()
            await asyncio.sleep(0)
        try:
            answer = await task
        except asyncio.CancelledError:
            self.ended["cancelled"] += 1
            return
        of = answer if writes else [found.model_name for found in answer]
        right = of == (True if writes else [model])
        self.ended["answered" if right else "wrong"] += 1


CALLS, TURNS = 600, 20


@pytest.mark.parametrize("pipelined", [True, False])
async def test_a_storm_of_cancellations_mixes_no_answers_and_leaks_nothing(
    server: Server,
    no_tasks_left: None,
    monkeypatch: pytest.MonkeyPatch,
    pipelined: bool,
) -> None:
    if not pipelined:  # no hiredis: each call has a connection of its own
        monkeypatch.setitem(sys.modules, "redis_registry.store.driver.pipeline", None)
    with Proxy(server.process.port) as proxy:
        proxy.delay_secs = 0.002
        async with RedisModelRegistry.from_url(
            proxy.url, run_checker=False, max_connections=TURNS, **SLOW
        ) as registry:
            for number in range(4):
                await registry.register_instance(instance(1, f"m{number}"))
            storm = Storm(registry)
            for batch in batched(range(CALLS), 15):
                await asyncio.gather(*map(storm.one, batch))
            assert storm.ended["wrong"] == 0
            assert min(storm.ended["answered"], storm.ended["cancelled"]) > 100
            for number in range(0, CALLS, 3):  # what was cancelled may be said again
                item = instance(number + 1, f"w{number}")
                assert await registry.register_instance(item)
            assert len(await registry.get_all_model_instances()) == CALLS // 3 + 4
            (lanes,) = registry._executor._lanes.values()
            turns = [one for lane in lanes.values() for one in lane._turns.values()]
            free = [one._value for one in turns]
            assert free == [TURNS] * len(free), "all turns were given back"
    told = [e.kind for e in server.store.events() if e.subject.startswith("w")]
    assert told == [Kind.REGISTERED] * (CALLS // 3), "once, however often it was said"


def batched(numbers: range, size: int) -> list[range]:
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]
