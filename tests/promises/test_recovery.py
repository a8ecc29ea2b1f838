"""L4: the registry's own outage kills nobody, and delays a real death by one timeout at most."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Self

import pytest

from redis_registry import Kind, RedisModelRegistry, RegistryUnavailable
from redis_registry.store import following
from tests.conftest import Bench, Server
from tests.helpers import Store, connect, instance, instances, until
from tests.places import Place


async def test_after_a_silence_overdue_instances_are_protected(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3))
    bench.store.age(90, away=True)

    assert await bench.count() == {"protected": 3}
    assert (
        len(await bench.registry.get_all_instances("glm@llm", healthy_only=True)) == 3
    )
    assert await bench.registry.select_one_health_instance("glm@llm") is not None
    await bench.sweep()
    assert await bench.count() == {"protected": 3}
    (event,) = bench.store.events(Kind.RECOVERY)
    assert event.cause == "silence"
    status = await bench.status()
    assert status.recovery_cause == "silence"
    assert status.recovering_until is not None
    left = (status.recovering_until - status.now).total_seconds()
    assert 55 < left <= 60


async def test_the_pace_of_others_is_no_silence_to_a_hasty_client(bench: Bench) -> None:
    """Its own timeout says nothing of how often the others call; the controller's does."""
    await bench.registry.send_heartbeats(instances(3))
    await bench.sweep()
    async with RedisModelRegistry.from_url(
        bench.server.url, heartbeat_timeout_secs=1.0, run_checker=False
    ) as hasty:
        bench.store.age(5, away=True)
        await hasty.get_all_instances("glm@llm")
        await hasty.send_heartbeat(instance(4))
        assert not bench.store.events(Kind.RECOVERY)
        bench.store.age(90, away=True)
        await hasty.get_all_instances("glm@llm")
    (event,) = bench.store.events(Kind.RECOVERY)
    assert event.cause == "silence"
    status = await bench.status()
    assert status.recovering_until is not None
    left = (status.recovering_until - status.now).total_seconds()
    assert 55 < left <= 60


async def test_who_stays_silent_through_the_recovery_is_flipped_at_its_end(
    bench: Bench,
) -> None:
    await bench.registry.send_heartbeats(instances(3))
    bench.store.age(90, away=True)
    await bench.sweep()
    bench.store.age(30, away=False)
    await bench.registry.send_heartbeat(instance(2))
    bench.store.age(29, away=False)
    await bench.sweep()
    assert await bench.states() == {1: "protected", 2: "healthy", 3: "protected"}

    bench.store.age(1.5, away=False)
    await bench.sweep()

    assert await bench.states() == {1: "unhealthy", 2: "healthy", 3: "unhealthy"}
    assert len(bench.store.events(Kind.RECOVERY)) == 1


async def test_who_was_dead_before_the_silence_gets_no_grace(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    bench.store.silence(instance(1))
    bench.store.age(5, away=False)  # the registry is up, past the deadline of 1

    bench.store.age(70, away=True)
    await bench.sweep()

    assert await bench.states() == {1: "unhealthy", 2: "protected"}


async def test_repeated_silences_delay_a_death_by_one_timeout_at_most(
    bench: Bench,
) -> None:
    """Hand-overs with gaps, again and again: the dead go two timeouts after their deadline."""
    await bench.registry.register_instance(instance())
    bench.store.age(61, away=True)
    await bench.sweep()
    assert await bench.states() == {8001: "protected"}
    waited = 1.0
    while (await bench.states())[8001] == "protected":
        bench.store.age(20, away=True)
        waited += 20
        await bench.sweep()
        assert waited <= 130, "protected for ever"

    assert await bench.states() == {8001: "unhealthy"}
    assert waited >= 60


async def test_a_live_instance_survives_repeated_silences(bench: Bench) -> None:
    await bench.registry.register_instance(instance())
    for _ in range(20):
        bench.store.age(70, away=True)
        await bench.sweep()
        bench.store.age(19, away=False)
        assert await bench.states() == {8001: "protected"}
        await bench.registry.send_heartbeat(instance())
    assert bench.store.events(Kind.UNHEALTHY) == []


async def test_nobody_swept_for_a_while_means_nobody_is_flipped(bench: Bench) -> None:
    """Workers that speak through controllers can't beat while no controller lives."""
    await bench.registry.send_heartbeats(instances(2))
    await bench.sweep()
    bench.store.age(61, away=False)
    meta = bench.store.key("meta")
    bench.server.raw.hset(meta, "swept", str(bench.store.now_us() - 61_000_000))

    await bench.sweep()

    assert await bench.count() == {"protected": 2}
    assert bench.store.events(Kind.RECOVERY)[0].cause == "unswept"


async def test_a_clock_jumping_forward_kills_nobody(bench: Bench) -> None:
    """Every stored time lies an hour back at once: just what a jump of the server looks like."""
    await bench.registry.send_heartbeats(instances(3))
    await bench.sweep()
    bench.store.age(3600, away=True)

    await bench.sweep()

    assert await bench.count() == {"protected": 3}
    assert bench.store.events(Kind.UNHEALTHY) == []


async def test_a_clock_put_back_neither_kills_nor_keeps_the_dead(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(600))
    await bench.sweep()
    bench.store.age(-3600, away=True)

    checker = await bench.sweep()

    assert checker.status.leads == {bench.home}, "the lease is not held for an hour"
    assert bench.store.events(Kind.RECOVERY)[0].cause == "clock put back"
    most = bench.store.now_us() + 61_000_000
    assert max(bench.store.scores("deadlines").values()) <= most
    assert "rebase" not in bench.store.hash("meta")
    assert await bench.count() == {"healthy": 600}
    await bench.registry.send_heartbeat(instance(7))
    bench.store.age(30, away=False)
    await bench.registry.send_heartbeat(instance(7))
    bench.store.age(31, away=False)
    await bench.sweep()
    assert await bench.count() == {"healthy": 1, "unhealthy": 599}


async def test_reads_do_not_serve_the_dead_of_a_clock_put_back(bench: Bench) -> None:
    """Their deadlines lie an hour ahead, and nobody sweeps who would bring them back."""
    await bench.registry.send_heartbeats(instances(2))
    bench.store.age(-3600, away=True)
    assert await bench.count() == {"protected": 2}
    bench.store.age(30, away=False)
    await bench.registry.send_heartbeat(instance(1))
    assert await bench.states() == {1: "healthy", 2: "protected"}
    bench.store.age(31, away=False)

    assert await bench.states() == {1: "healthy", 2: "overdue"}


async def test_views_hear_of_the_dead_of_a_clock_put_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the late and they take several pages."""
    monkeypatch.setattr(following, "OVERDUE_PAGE", 2)
    executor, operations = bench.registry._executor, bench.registry._operations

    async def silent() -> list[int]:
        told = await executor.run(operations.overdue(bench.home))
        return sorted(int(member.split(":")[2]) for member in told.members)

    await bench.registry.send_heartbeats(instances(8))
    bench.store.age(-3600, away=True)
    assert await silent() == [], "all are protected"
    bench.store.age(30, away=False)
    await bench.registry.send_heartbeats([instance(1), instance(2), instance(3)])
    bench.store.age(31, away=False)
    assert await silent() == [4, 5, 6, 7, 8]
    await bench.registry.send_heartbeat(instance(3))
    bench.store.age(30, away=False)

    assert await silent() == [1, 2, 4, 5, 6, 7, 8]


async def test_another_server_process_starts_a_new_epoch_and_a_recovery(
    bench: Bench,
) -> None:
    """After a failover acknowledged writes may be lost, so revisions may be used twice."""
    await bench.registry.send_heartbeats(instances(2))
    await bench.sweep()
    before = await bench.status()
    bench.server.raw.hset(bench.store.key("meta"), "run", "0" * 40)
    bench.store.silence(*instances(2))

    await bench.sweep()

    after = await bench.status()
    assert after.epoch != before.epoch
    assert after.recovery_cause == "restarted"
    assert after.lease_token > before.lease_token
    assert await bench.count() == {"protected": 2}


async def test_a_restart_whose_event_was_refused_is_noticed_by_the_next_call(
    bench: Bench,
) -> None:
    """Scripts don't roll back: had the new process been noted first, nobody would be protected."""
    await bench.registry.send_heartbeats(instances(2))
    before, meta = await bench.status(), bench.store.key("meta")
    bench.server.raw.hset(meta, mapping={"run": "0" * 40, "rev": before.revision - 1})
    bench.store.silence(*instances(2))

    assert await bench.count() == {"protected": 2}

    (event,) = bench.store.events(Kind.RECOVERY)
    assert event.cause == "restarted"
    assert (await bench.status()).epoch != before.epoch


async def test_a_restart_that_outlasts_a_recovery_takes_nobodys_grace_away(
    bench: Bench,
) -> None:
    """Found by tests/explore: whoever was protected when Redis went away had no time to beat."""
    await bench.registry.register_instance(instance())
    bench.store.age(90, away=True)
    assert await bench.states() == {8001: "protected"}
    bench.store.age(61, away=True)  # gone again, beyond the end of that recovery
    bench.server.raw.hset(bench.store.key("meta"), "run", "0" * 40)

    assert await bench.states() == {8001: "protected"}
    bench.store.age(59, away=False)
    await bench.sweep()
    assert await bench.states() == {8001: "protected"}
    bench.store.age(1.5, away=False)
    await bench.sweep()
    assert await bench.states() == {8001: "unhealthy"}


async def test_another_outage_takes_nothing_from_who_was_given_more_than_the_window(
    bench: Bench,
) -> None:
    """Found by tests/explore: a timeout of its own is longer than a recovery goes on."""
    await bench.registry.register_instance(instance(heartbeat_timeout_secs=300))
    bench.store.age(310, away=True)
    assert await bench.states() == {8001: "protected"}
    bench.store.age(61, away=False)
    bench.store.age(20, away=True)

    assert await bench.states() == {8001: "protected"}
    assert len(bench.store.events(Kind.RECOVERY)) == 2
    bench.store.age(218, away=False)
    await bench.sweep()
    assert await bench.states() == {8001: "protected"}
    bench.store.age(1.5, away=False)
    await bench.sweep()
    assert await bench.states() == {8001: "unhealthy"}


async def test_flushed_meta_does_not_stop_the_stream(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    before = await bench.status()
    bench.server.raw.delete(bench.store.key("meta"))

    await bench.registry.deregister_instance(instance(1))

    after = await bench.status()
    assert after.revision > before.revision
    assert after.epoch != before.epoch


TIMES: dict[str, Any] = {"heartbeat_timeout_secs": 1.5, "heartbeat_interval_secs": 0.5}


class Crowd:
    """Workers that beat three times a timeout, whatever happens."""

    def __init__(self, registry: RedisModelRegistry, size: int) -> None:
        self._registry = registry
        self._size = size
        self._tasks: list[asyncio.Task[None]] = []
        self.failures = 0

    async def __aenter__(self) -> Self:
        for item in instances(self._size):
            await self._registry.register_instance(item)
            self._tasks.append(asyncio.create_task(self._beat(item.port)))
        return self

    async def _beat(self, port: int) -> None:
        while True:
            await asyncio.sleep(0.5)
            try:
                await self._registry.send_heartbeat(instance(port))
            except RegistryUnavailable:
                self.failures += 1

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["stop", "kill", "flushed", "script flush"])
async def test_a_real_outage_of_three_timeouts_flips_nobody(
    own_server: Place, no_tasks_left: None, how: str
) -> None:
    raw = connect(own_server.url)
    async with (
        RedisModelRegistry.from_url(
            own_server.url, **TIMES, socket_timeout_secs=0.4, operation_timeout_secs=0.6
        ) as registry,
        Crowd(registry, 20) as crowd,
    ):
        await asyncio.sleep(0.6)
        if how == "stop":
            own_server.signal(signal.SIGSTOP)
            await asyncio.sleep(4.5)
            own_server.signal(signal.SIGCONT)
        elif how == "kill":
            own_server.kill()
            await asyncio.sleep(4.5)
            own_server.start()
        elif how == "flushed":
            raw.flushall()
        else:
            raw.script_flush()

        async def all_back() -> bool:
            try:
                found = await registry.get_all_instances("glm@llm", healthy_only=True)
            except RegistryUnavailable:
                return False
            return len(found) == 20

        took = await until(all_back, "all are served again", within_secs=3)
        if how == "flushed":
            assert took < 2 * 0.5 + 0.3, "within two heartbeats"
        await asyncio.sleep(2.0)  # longer than a timeout: nobody dies afterwards either
        assert await all_back()
        store = Store(raw)
        assert store.events(Kind.UNHEALTHY) == []
        assert crowd.failures > 0 or how in ("flushed", "script flush")
        checker = registry.checker
        assert checker is not None
        assert checker.quiet_secs is not None
        assert checker.quiet_secs < 1
    store.check()
    raw.close()


async def test_calls_end_at_their_deadline_while_redis_is_paused(
    own_server: Place, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, operation_timeout_secs=0.5
    ) as registry:
        await registry.register_instance(instance())
        own_server.signal(signal.SIGSTOP)
        start = asyncio.get_running_loop().time()
        with pytest.raises(RegistryUnavailable, match=r"did not answer within 0\.5 s"):
            await registry.get_all_instances("glm@llm")
        assert asyncio.get_running_loop().time() - start < 1.0
        own_server.signal(signal.SIGCONT)
        assert len(await registry.get_all_instances("glm@llm")) == 1


async def test_the_first_read_after_an_outage_empties_no_router(
    server: Server, no_tasks_left: None
) -> None:
    """A read comes before any sweep: it starts the recovery itself."""
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **TIMES
    ) as registry:
        await registry.register_instance(instance())
        await asyncio.sleep(1.7)

        found = await registry.get_all_instances("glm@llm", healthy_only=True)

        assert [str(item.state) for item in found] == ["protected"]
        await asyncio.sleep(1.6)
        assert await registry.get_all_instances("glm@llm", healthy_only=True) == []
