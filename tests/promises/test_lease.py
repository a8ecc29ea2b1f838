"""W5 and S1: one checker sweeps, a zombie is harmless, and no checker dies of an error."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from redis_registry import Kind, LeaseLost, RedisModelRegistry
from redis_registry.roles.checker import RELEASE_SECS
from redis_registry.store.operations import Term
from tests.conftest import FAST, Bench, Server
from tests.helpers import instance, instances, until


async def test_only_the_holder_sweeps_and_others_wait(bench: Bench) -> None:
    first, second = bench.checker("first"), bench.checker("second")
    await bench.registry.send_heartbeats(instances(2))

    await first._sweep(bench.home)
    bench.store.silence(*instances(2))
    await second._sweep(bench.home)
    assert (first.status.leads, second.status.leads) == ({bench.home}, set())
    assert await bench.count() == {"overdue": 2}

    await first._sweep(bench.home)
    assert await bench.count() == {"unhealthy": 2}


async def test_a_lease_ends_and_the_next_term_has_a_higher_token(bench: Bench) -> None:
    first, second = bench.checker("first"), bench.checker("second")
    await first._sweep(bench.home)
    bench.store.age(11, away=False)

    await second._sweep(bench.home)

    assert second._terms[bench.home].token == first._terms[bench.home].token + 1
    await first._sweep(bench.home)
    assert first.status.leads == set()
    causes = [event.cause for event in bench.store.events(Kind.LEASE)]
    assert causes == ["term 1", "term 2"]


async def test_writes_of_an_older_term_are_refused(bench: Bench) -> None:
    operations, executor = bench.registry._operations, bench.registry._executor
    zombie, heir = bench.checker("zombie"), bench.checker("heir")
    await bench.registry.register_instance(instance())
    await zombie._sweep(bench.home)
    bench.store.age(11, away=False)
    await heir._sweep(bench.home)
    bench.store.silence(instance())
    member = bench.store.member(instance())
    old, current = zombie._terms[bench.home], heir._terms[bench.home]
    other_epoch = Term(bench.home, current.holder, current.token, "another-epoch")
    before = bench.store.events()

    for term in (old, other_epoch):
        for operation in (
            operations.flip(term, [member], {}),
            operations.forget(term, ["glm@llm:10.0.0.1:8001"]),
            operations.rebase(term, 0),
            operations.release(term),
        ):
            with pytest.raises(LeaseLost, match="heir 2"):
                await executor.run(operation)

    assert bench.store.events() == before
    assert await executor.run(operations.flip(current, [member], {})) == "f"


async def test_losing_the_lease_ends_the_sweep_in_progress(bench: Bench) -> None:
    zombie, heir = bench.checker("zombie"), bench.checker("heir")
    await bench.registry.send_heartbeats(instances(3))
    (seen,) = await zombie._ask(bench.home, 0)
    bench.store.age(11, away=False)
    await heir._sweep(bench.home)
    bench.store.silence(*instances(3))
    term = Term(bench.home, "zombie", seen.token, seen.epoch)

    with pytest.raises(LeaseLost):
        await zombie._flip(
            term,
            seen._replace(members=list(bench.store.scores("deadlines")), overdue=3),
        )

    assert bench.store.events(Kind.UNHEALTHY) == []


async def test_five_checkers_in_one_process_make_one_event(
    server: Server, no_tasks_left: None
) -> None:
    registries = [RedisModelRegistry.from_url(server.url, **FAST) for _ in range(5)]
    for registry in registries:
        await registry.__aenter__()
    await registries[0].register_instance(instance())

    async def told() -> bool:
        return bool(server.store.events(Kind.UNHEALTHY))

    await until(told, "the flip")
    await asyncio.sleep(0.5)
    assert len(server.store.events(Kind.UNHEALTHY)) == 1
    leads = [registry.checker for registry in registries]
    held = [number for checker in leads if checker for number in checker.leads]
    assert sorted(held) == list(range(server.store.partitions))
    for registry in registries:
        await registry.aclose()


async def test_closing_hands_the_lease_over_at_once(
    server: Server, no_tasks_left: None
) -> None:
    slow: dict[str, Any] = {
        "heartbeat_timeout_secs": 6,
        "lease_ttl_secs": 1.2,
        "gap_secs": 1.5,
    }
    first = RedisModelRegistry.from_url(server.url, **slow)
    second = RedisModelRegistry.from_url(server.url, **slow)
    async with first:
        await until(lambda: leading(first), "the first leads")
        await second.__aenter__()
        await until(lambda: working(second), "the second looks on")
    took = await until(lambda: leading(second), "the second leads")
    await second.aclose()
    assert took < 0.9, "sooner than the lease would have ended"


async def leading(registry: RedisModelRegistry) -> bool:
    return (
        registry.checker is not None
        and len(registry.checker.leads) == registry._operations.partitions
    )


async def working(registry: RedisModelRegistry) -> bool:
    return registry.checker is not None and registry.checker.last_success is not None


HOLDER = """
import asyncio, sys
from redis_registry import RedisModelRegistry
async def main():
    async with RedisModelRegistry.from_url(sys.argv[1], heartbeat_timeout_secs=2,
                                           heartbeat_interval_secs=0.5) as registry:
        while not registry.checker.leads:
            await asyncio.sleep(0.01)
        print("leads", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.one_partition("two controllers share several")
async def test_a_stopped_holder_is_replaced_and_harmless_when_it_resumes(
    server: Server, no_tasks_left: None
) -> None:
    """The real thing: a process that holds the lease is SIGSTOPped, and resumed later."""
    zombie = subprocess.Popen(  # noqa: ASYNC220  a moment
        [sys.executable, "-c", HOLDER, server.url], stdout=subprocess.PIPE
    )
    try:
        assert zombie.stdout is not None
        assert await asyncio.to_thread(zombie.stdout.readline) == b"leads\n"
        zombie.send_signal(signal.SIGSTOP)
        async with RedisModelRegistry.from_url(
            server.url, heartbeat_timeout_secs=2, heartbeat_interval_secs=0.5
        ) as registry:
            await until(lambda: leading(registry), "the other takes over")
            await registry.register_instance(instance(1))
            await registry.register_instance(instance(2))
            zombie.send_signal(signal.SIGCONT)
            for _ in range(30):
                await registry.send_heartbeat(instance(2))
                await asyncio.sleep(0.1)
            assert await leading(registry)
            states = {
                item.port: item.healthy
                for item in await registry.get_all_instances("glm@llm")
            }
        assert states == {1: False, 2: True}
        assert len(server.store.events(Kind.UNHEALTHY)) == 1
    finally:
        zombie.kill()
        zombie.communicate()


async def test_a_checker_survives_every_error_and_says_so(
    server: Server,
    no_tasks_left: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S1: an exception of any kind, at any time, ends no background coroutine."""
    async with RedisModelRegistry.from_url(server.url, **FAST) as registry:
        await until(lambda: leading(registry), "it leads")
        checker = registry._checker
        assert checker is not None
        healthy = checker._sweep
        raised: list[type[Exception]] = []
        errors = [RuntimeError, KeyError, OSError, ValueError]

        async def broken(partition: int) -> float:
            if errors:
                raised.append(errors.pop())
                raise raised[-1]("on purpose")
            return await healthy(partition)

        monkeypatch.setattr(checker, "_sweep", broken)
        with caplog.at_level(logging.ERROR):
            await until(lambda: _recovered(registry, raised), "it goes on")
        assert "on purpose" in (registry.checker.last_error or "")  # pyright: ignore[reportOptionalMemberAccess]
        assert caplog.text.count("sweep failed, will try again") == 4
        await registry.register_instance(instance())

        async def dead() -> bool:
            return bool(server.store.events(Kind.UNHEALTHY))

        await until(dead, "it still flips")


async def _recovered(
    registry: RedisModelRegistry, raised: list[type[Exception]]
) -> bool:
    return len(raised) == 4 and await leading(registry)


async def test_a_wrong_type_in_redis_is_reported_and_mended_by_removing_it(
    server: Server, no_tasks_left: None
) -> None:
    server.raw.set(server.store.key("deadlines"), "not ours")
    async with RedisModelRegistry.from_url(server.url, **FAST) as registry:

        async def complaining() -> bool:
            assert registry.checker is not None
            return "KeyConflict" in (registry.checker.last_error or "")

        await until(complaining, "the checker says why")
        server.raw.delete(server.store.key("deadlines"))
        await until(lambda: leading(registry), "it goes on")


async def test_controllers_share_the_partitions(
    server: Server, no_tasks_left: None
) -> None:
    """One that comes later gets its part; when one goes, the other takes all."""
    options: dict[str, Any] = {
        "partitions": 5,
        "heartbeat_timeout_secs": 3.0,
        "heartbeat_interval_secs": 0.1,
        "lease_ttl_secs": 0.2,
    }

    def leads(registry: RedisModelRegistry) -> set[int]:
        assert registry.checker is not None
        return registry.checker.leads

    async with RedisModelRegistry.from_url(server.url, **options) as first:
        await until(lambda: _true(len(leads(first)) == 5), "it takes all")
        async with RedisModelRegistry.from_url(server.url, **options) as second:

            async def shared() -> bool:
                one, other = leads(first), leads(second)
                return len(one) + len(other) == 5 and len(one) in (2, 3)

            await until(shared, "they share", within_secs=10)
            flipped = instance(1, heartbeat_timeout_secs=0.5)
            await first.register_instance(flipped)

            async def unhealthy() -> bool:
                (found,) = await second.get_all_instances(flipped.model_name)
                return found.state == "unhealthy"

            await until(unhealthy, "whoever leads flips")
        await until(lambda: _true(len(leads(first)) == 5), "it takes over")


async def _true(value: bool) -> bool:
    return value


@pytest.mark.standalone("one server stands still")
async def test_leaving_a_silent_redis_takes_one_word_however_many_leases_are_held(
    server: Server, no_tasks_left: None
) -> None:
    """Each lease was given back in turn: a controller with 12 took 12 s to leave."""
    registry = RedisModelRegistry.from_url(server.url, partitions=6)
    await registry.get_all_model_instances()

    async def leads_all() -> bool:
        return len(registry.checker.leads) == 6 if registry.checker else False

    await until(leads_all, "it leads all partitions")
    server.process.signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        await registry.aclose()
    finally:
        server.process.signal(signal.SIGCONT)
    assert time.monotonic() - began < 3 * RELEASE_SECS
