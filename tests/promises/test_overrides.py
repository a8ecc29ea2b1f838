"""Operators' decisions are records of their own: nothing that a worker or Redis goes through undoes them (W6)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from redis_registry import (
    Health,
    Kind,
    LimitReached,
    ModelInstance,
    OutOfMemory,
    RedisModelRegistry,
    Selector,
    SyncModelRegistry,
)
from redis_registry.wire.overrides import MAX_OVERRIDES
from tests.conftest import FAST, SLOW, Bench, MakeBench, Server
from tests.helpers import Store, connect, instance, instances, until, wait_for
from tests.nodes import Node
from tests.places import Place
from tests.replica import Replica


def _listed(replica: Replica) -> list[ModelInstance]:
    """What a replica answers DB-GPT's clients, who choose among it."""
    reply = httpx.get(
        f"{replica.base}/api/controller/models",
        params={"model_name": "glm@llm", "healthy_only": "true"},
        timeout=5,
    )
    assert reply.status_code == 200, reply.text
    return [ModelInstance.model_validate(item) for item in reply.json()]


def test_it_holds_on_every_replica_through_a_killed_worker_and_a_restarted_redis(
    own_server: Place, replicas: list[Replica], tmp_path: Path
) -> None:
    times = ("--heartbeat-timeout-secs", "1", "--heartbeat-interval-secs", "0.2")
    for number in range(2):
        log = tmp_path / f"log{number}"
        replicas.append(Replica("--url", own_server.url, *times, log=log))
    for replica in replicas:
        replica.up()
    beats = ("--timeout", "1", "--interval", "0.3")
    worker = Node(own_server.url, "glm@llm", 1, 2, *beats)  # ports 1 and 2, weight 1
    try:
        worker.ready()
        with SyncModelRegistry.from_url(own_server.url, **FAST) as registry:
            made = registry.override(
                instance(1), weight=0, reason="canary is sick", author="ann@ops"
            )
            for replica in replicas:
                assert [item.port for item in _listed(replica)] == [2]

            worker.kill()
            own_server.kill()
            own_server.start()
            worker = Node(own_server.url, "glm@llm", 1, 2, *beats)
            worker.ready()

            for replica in replicas:
                wait_for(lambda r=replica: len(_listed(r)) == 1, "the worker is back")
                assert [item.port for item in _listed(replica)] == [2]
            one, two = registry.get_all_instances("glm@llm")
            assert (one.port, one.weight, one.overrides) == (1, 0, [made.name])
            assert (two.port, two.weight, two.overrides) == (2, 1, [])
            chosen = {
                found.port
                for _ in range(20)
                if (found := registry.select_one_health_instance("glm@llm"))
            }
            assert chosen == {2}
            assert registry.overrides() == [made]
            raw = connect(own_server.url)
            (event,) = Store(raw).events(Kind.OVERRIDDEN)
            assert event.override == made
            assert (made.author, made.reason) == ("ann@ops", "canary is sick")
            assert made.at == event.at

            assert registry.clear_override(made.name, author="bob", reason="mended")
            for replica in replicas:
                assert [item.port for item in _listed(replica)] == [1, 2]
            (event,) = Store(raw).events(Kind.OVERRIDE_CLEARED)
            assert (event.override, event.cause) == (made, "by bob: mended")
            raw.close()
    finally:
        worker.kill()


async def test_it_ends_by_itself_and_says_so(server: Server) -> None:
    item = instance(check_healthy=False)
    async with (
        RedisModelRegistry.from_url(server.url, **FAST) as checking,
        RedisModelRegistry.from_url(server.url, run_checker=False) as reading,
    ):
        await checking.register_instance(item)
        made = await checking.override(
            item, enabled=False, reason="try", author="me", expires_secs=0.5
        )
        assert made.at
        assert made.expires
        assert made.expires == made.at + timedelta(seconds=0.5)
        (found,) = await reading.get_all_instances("glm@llm")
        assert (found.enabled, found.overrides) == (False, [made.name])

        async def restored() -> bool:
            (found,) = await reading.get_all_instances("glm@llm")
            return bool(found.enabled)

        await until(restored, "it ends")

        async def told() -> bool:
            return bool(server.store.events(Kind.OVERRIDE_EXPIRED))

        await until(told, "its end is told")
        (event,) = server.store.events(Kind.OVERRIDE_EXPIRED)
        assert event.override == made
        assert 0 <= (event.at - made.expires).total_seconds() < 0.3
        assert server.store.hash("overrides") == {}
        assert "orders_end" not in server.store.hash("meta")


async def test_its_end_is_judged_by_readers_when_no_checker_lives(bench: Bench) -> None:
    item = instance()
    await bench.registry.register_instance(item)
    long = await bench.registry.override(item, weight=2, reason="x", expires_secs=900)
    await bench.registry.override(item, weight=0, reason="x", expires_secs=0.05)
    assert await bench.registry.select_one_health_instance("glm@llm") is None

    async def restored() -> bool:
        return await bench.registry.select_one_health_instance("glm@llm") is not None

    await until(restored, "the override has ended")
    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert (found.weight, found.overrides) == (2, [long.name])
    assert await bench.registry.overrides() == [long]
    assert len(bench.store.hash("overrides")) == 2, "nobody has swept"
    await bench.sweep()
    assert list(bench.store.hash("overrides")) == [long.name]
    assert long.expires
    ends = long.expires.timestamp() * 1_000_000
    assert int(bench.store.hash("meta")["orders_end"]) == round(ends)


async def test_a_sweep_of_an_older_term_removes_none(bench: Bench) -> None:
    from redis_registry import LeaseLost

    await bench.registry.override(
        Selector(model="*"), weight=0, reason="x", expires_secs=0.001
    )
    await (await bench.sweep())._release()
    one = bench.checkers[0]
    await one._sweep(bench.home)
    term = one._terms[bench.home]
    await one._release()
    await bench.checker("other")._sweep(bench.home)
    with pytest.raises(LeaseLost):
        await bench.registry._executor.run(bench.registry._operations.expire(term))


async def test_many_that_end_at_once_go_in_bounded_calls(bench: Bench) -> None:
    for _ in range(250):
        await bench.registry.override(
            Selector(model="*"), weight=0, reason="x", expires_secs=0.001
        )
    await bench.sweep()
    assert len(bench.store.hash("overrides")) == 50
    await bench.sweep()
    assert len(bench.store.events(Kind.OVERRIDE_EXPIRED)) == 250


async def test_it_survives_whatever_the_worker_says(real: RedisModelRegistry) -> None:
    item = instance(weight=1.0, incarnation="life-1")
    await real.register_instance(item)
    await real.override(
        item, enabled=False, weight=7, draining=True, labels={"a": "b"}, reason="mine"
    )

    async def check() -> None:
        (found,) = await real.get_all_instances("glm@llm")
        assert (found.enabled, found.weight, found.readiness, found.reason) == (
            False,
            7,
            "draining",
            "mine",
        )
        assert found.metadata["a"] == "b"

    await check()
    await real.send_heartbeat(item)
    await check()
    await real.register_instance(instance(weight=3.0, incarnation="life-2"))
    await check()
    gone = instance(incarnation="life-2", remove_from_registry=True)
    await real.deregister_instance(gone)
    assert await real.get_all_instances("glm@llm") == []
    await real.register_instance(instance(weight=3.0))
    await check()


async def test_the_record_itself_is_never_touched(bench: Bench) -> None:
    await bench.registry.register_instance(instance())
    before = bench.store.record(instance())
    await bench.registry.override(instance(), healthy=False, weight=0, reason="x")
    assert bench.store.record(instance()) == before


async def test_forced_health_is_over_the_deadline_the_flip_and_the_guard(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench()
    crowd = instances(40)
    await bench.registry.send_heartbeats(crowd)
    alive = await bench.registry.override(
        crowd[0], healthy=True, reason="probe says so"
    )
    dead = await bench.registry.override(crowd[1], healthy=False, reason="it lies")
    bench.store.age(61, away=False)
    await bench.registry.send_heartbeats(crowd[1:2])
    await bench.sweep()  # the guard holds most of them
    states = await bench.states()
    assert (states[1], states[2]) == ("healthy", "forced")
    assert "protected" in states.values()
    healthy = await bench.registry.get_all_instances("glm@llm", healthy_only=True)
    assert crowd[0].identity in {item.identity for item in healthy}
    assert crowd[1].identity not in {item.identity for item in healthy}
    assert all(item.healthy for item in healthy)
    bench.store.age(400, away=False)
    for _ in range(3):
        await bench.sweep()
    assert (await bench.count())["unhealthy"] == 38
    only = await bench.registry.select_one_health_instance("glm@llm")
    assert only is not None
    assert only.identity == crowd[0].identity
    assert only.overrides == [alive.name]

    await bench.registry.clear_override(dead.name)
    assert (await bench.states())[2] == "unhealthy", "what is true shows again"


@pytest.mark.parametrize("by_view", [False, True])
async def test_one_that_is_forced_healthy_can_be_reserved(
    real: RedisModelRegistry, by_view: bool
) -> None:
    await real.register_instance(instance())
    await real.deregister_instance(instance())
    await real.override(instance(), healthy=True, reason="its network is mended")
    async with real.view() as view:
        given = (lambda: view.able("glm@llm")) if by_view else None
        async with real.reserve("glm@llm", candidates=given) as reservation:
            assert reservation.instance.forced is True
        await real.override(instance(), healthy=False, reason="it is not")
        assert (await real.get_all_instances("glm@llm"))[0].forced is False
    await real.override(instance(2), weight=2, reason="x")
    await real.register_instance(instance(2))
    assert (await real.get_all_instances("glm@llm"))[1].forced is None


async def test_it_holds_while_everybody_is_protected(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3))
    await bench.registry.override(instance(2), healthy=False, reason="x")
    bench.store.age(70, away=True)
    assert await bench.states() == {1: "protected", 2: "forced", 3: "protected"}
    assert (await bench.status()).recovering_until is not None


async def test_an_instance_that_does_not_exist_yet_is_meant_too(
    real: RedisModelRegistry,
) -> None:
    made = await real.override(instance(9), enabled=False, reason="not before noon")
    assert await real.get_all_instances("glm@llm") == []
    await real.register_instance(instance(9))
    (found,) = await real.get_all_instances("glm@llm")
    assert (found.enabled, found.overrides) == (False, [made.name])
    assert await real.select_one_health_instance("glm@llm") is None


async def test_a_zone_is_drained_in_every_partition(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(partitions=3)
    for number in range(12):
        zone = "rack-7" if number % 2 else "rack-8"
        await bench.registry.register_instance(instance(1, f"m{number}", zone=zone))
    made = await bench.registry.override(
        Selector(zone="*-7"), draining=True, reason="power", name="rack-7"
    )
    assert made.name == "rack-7"
    found = await bench.registry.get_all_model_instances()
    for item in found:
        assert (item.readiness == "draining") == (item.zone == "rack-7")
        chosen = await bench.registry.select_one_health_instance(item.model_name)
        assert (chosen is None) == (item.zone == "rack-7")
    assert await bench.registry.overrides() == [made]

    # The same name for one model: it is no longer about the zone, in no partition.
    await bench.registry.override(
        Selector(model="m1"), enabled=False, reason="x", name="rack-7"
    )
    found = await bench.registry.get_all_model_instances()
    assert {i.model_name for i in found if i.overrides} == {"m1"}
    assert await bench.registry.clear_override("rack-7")
    assert not await bench.registry.clear_override("rack-7")
    assert await bench.registry.overrides() == []


@pytest.mark.damages
async def test_every_partition_is_full_or_it_is_nowhere(make_bench: MakeBench) -> None:
    bench = await make_bench(partitions=2)
    raw, key = bench.server.raw, bench.store.key("overrides")
    raw.hset(key, mapping={f"o{n}": "damaged" for n in range(MAX_OVERRIDES)})
    with pytest.raises(LimitReached, match="clear some"):
        await bench.registry.override(Selector(model="*"), weight=0, reason="x")
    other = key.replace("/0}", "/1}")
    assert raw.hlen(other) == 0
    raw.delete(key)


@pytest.mark.damages
async def test_one_that_is_refused_leaves_the_former_of_its_name(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(partitions=2)
    raw, key = bench.server.raw, bench.store.key("overrides")
    await bench.registry.override(
        Selector(host="10.*"), draining=True, reason="x", name="rack"
    )
    full = key.replace("/0}", "/1}")
    (former,), (record,) = raw.hvals(key), raw.hvals(full)
    raw.hset(full, mapping={f"o{n}": record for n in range(MAX_OVERRIDES)})
    raw.hdel(full, "rack")
    with pytest.raises(LimitReached, match="clear some"):
        await bench.registry.override(
            Selector(model="*"), weight=0, reason="x", name="rack"
        )
    assert raw.hget(key, "rack") == former
    raw.delete(full)


@pytest.mark.one_partition("it repeats one call")
async def test_clearing_twice_and_repeating_a_lost_call_change_nothing_more(
    bench: Bench,
) -> None:
    operations, executor = bench.registry._operations, bench.registry._executor
    made = await bench.registry.override(Selector(port=1), weight=0, reason="x")
    again = operations.override(made, expires_secs=60)
    (call,) = next(again)  # the first one joined
    first = await executor.call(call)
    assert await executor.call(call) == first
    assert len(bench.store.events(Kind.OVERRIDDEN)) == 2
    clear = operations._clear("override", 0, made.name, "op1", "by me")
    assert [await executor.call(clear) for _ in range(2)] == [1, 1]
    assert len(bench.store.events(Kind.OVERRIDE_CLEARED)) == 1
    assert not await bench.registry.clear_override(made.name)


async def test_redis_that_is_full_refuses_before_any_write_and_lets_go(
    own_server: Place, no_tasks_left: None
) -> None:
    raw = connect(own_server.url)
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        await registry.register_instance(instance())
        made = await registry.override(instance(), weight=0, reason="x")
        await registry.set_alias("prod", "glm@llm")
        raw.config_set("maxmemory", "1mb")
        raw.config_set("maxmemory-policy", "noeviction")
        before = len(Store(raw).events())
        with pytest.raises(OutOfMemory):
            await registry.override(instance(), weight=1, reason="x")
        with pytest.raises(OutOfMemory):
            await registry.set_alias("other", "glm@llm")
        assert len(Store(raw).events()) == before
        assert await registry.overrides() == [made]
        assert await registry.clear_override(made.name)
        assert await registry.remove_alias("prod")
        raw.config_set("maxmemory", "0")
        Store(raw).check()
    raw.close()


@pytest.mark.damages
async def test_a_damaged_record_has_no_effect_and_spoils_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.registry.register_instance(instance())
    made = await bench.registry.override(instance(), weight=0, reason="x")
    bench.server.raw.hset(bench.store.key("overrides"), "odd", "1:0:x:{")
    bench.server.raw.hset(bench.store.key("aliases"), "odd", "nonsense")
    bench.server.raw.hset(bench.store.key("meta"), "orders", 999)
    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert found.overrides == [made.name]
    assert "unreadable" in caplog.text
    assert await bench.registry.get_all_instances("odd") == []


@pytest.mark.damages
async def test_an_emptied_redis_has_none(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.register_instance(instance())
    await real.override(instance(), healthy=False, reason="x")
    assert (await real.get_all_instances("glm@llm"))[0].state is Health.FORCED
    server.raw.flushall()
    await real.send_heartbeat(instance())
    assert (await real.get_all_instances("glm@llm"))[0].state is Health.HEALTHY


async def test_overrides_outlive_the_loss_of_meta(bench: Bench) -> None:
    """As when a Redis that evicts throws just that key away: new readers were not told of them."""
    await bench.registry.send_heartbeat(instance())
    model = instance().model_name
    await bench.registry.override(Selector(model=model), enabled=False, reason="broken")
    bench.server.raw.delete(bench.store.key("meta"))

    async with RedisModelRegistry.from_url(
        bench.server.url, run_checker=False
    ) as other:
        assert await other.select_one_health_instance(model) is None
