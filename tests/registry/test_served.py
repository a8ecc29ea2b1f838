"""Adapters: an instance is one record, and found by every name that it serves."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_registry import (
    Identity,
    ModelInstance,
    NoneAvailable,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.selection import Reason
from redis_registry.store import readers
from tests.conftest import MakeBench, Server
from tests.helpers import instance, instances

BASE = "llama@llm"
NAMES = ["lora-1", "lora | 2", "lora:3"]


def ports(found: list[ModelInstance]) -> list[int]:
    return [item.port for item in found]


async def test_one_record_is_found_by_any_of_its_names(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(1, BASE, serves=NAMES))
    await registry.register_instance(instance(2, BASE))
    for name in NAMES:
        (found,) = await registry.get_all_instances(name, healthy_only=True)
        assert (found.model_name, found.port, found.serves) == (BASE, 1, NAMES)
        chosen = await registry.select_one_health_instance(name)
        assert chosen == found
        async with registry.reserve(name) as reservation:
            assert reservation.instance.port == 1
            assert await registry.in_flight(name) == {found.identity: 1}
            assert (await registry.in_flight(BASE))[found.identity] == 1
    assert ports(await registry.get_all_instances(BASE)) == [1, 2]
    assert len(await registry.get_all_model_instances()) == 2
    assert await registry.get_all_instances("lora") == []
    assert await registry.select_one_health_instance("lora-11") is None


async def test_a_name_of_its_own_and_one_that_is_served_are_both_found(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(3, "chat"))
    await registry.register_instance(instance(1, "other", serves=["chat"]))
    await registry.register_instance(instance(2, BASE, serves=["chat", BASE, "chat"]))
    found = await registry.get_all_instances("chat")
    assert [(item.model_name, item.port) for item in found] == [
        ("chat", 3),
        (BASE, 2),
        ("other", 1),
    ]
    assert found[1].serves == ["chat"], "once, and its own name goes without saying"
    assert ports(await registry.get_all_instances(BASE)) == [2]
    chosen = [await registry.select_one_health_instance("chat") for _ in range(60)]
    assert {item.port for item in chosen if item} == {1, 2, 3}


async def test_names_come_and_go_with_registrations_and_never_with_heartbeats(
    real: RedisModelRegistry, server: Server
) -> None:
    async def found(name: str) -> list[int]:
        return ports(await real.get_all_instances(name))

    one = instance(1, BASE, serves=["a", "b"])
    await real.register_instance(one)
    await real.send_heartbeat(instance(1, BASE))  # an old belief
    # It was unknown to a heartbeat, and has been registered meanwhile.
    late = real._operations._register(0, instance(1, BASE), "absent")
    await real._executor.call(late)
    assert (await found("a"), await found("b")) == ([1], [1])
    await real.register_instance(one.model_copy(update={"serves": ["b", "c"]}))
    assert (await found("a"), await found("b"), await found("c")) == ([], [1], [1])
    await real.deregister_instance(one)  # unhealthy, and still on record
    assert await found("b") == [1]
    assert await real.get_all_instances("b", healthy_only=True) == []
    await real.send_heartbeat(one)
    assert (await found("a"), await found("c")) == ([], [1]), "as it was registered"
    server.store.check()
    await real.register_instance(instance(1, BASE))
    assert await found("c") == []
    assert b"serves" not in server.store.record(one)
    await real.register_instance(one)
    await real.deregister_instance(
        one.model_copy(update={"remove_from_registry": True})
    )
    assert await found("a") == []
    assert not server.raw.exists(server.store.key("served"))


async def test_a_new_life_serves_what_it_says_and_what_is_forgotten_serves_nothing(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(forget_after_secs=3600.0)
    registry, store = bench.registry, bench.store
    old = instance(1, BASE, incarnation="a", serves=["x"])
    await registry.register_instance(old)
    new = instance(1, BASE, incarnation="b", serves=["y"])
    await registry.register_instance(new)
    assert ports(await registry.get_all_instances("x")) == []
    assert ports(await registry.get_all_instances("y")) == [1]
    await registry.deregister_instance(new)
    store.age(4000, away=False)
    await bench.sweep()
    assert await registry.get_all_instances("y") == []
    assert not store.raw.exists(store.key("served"))


async def test_it_is_judged_by_the_same_deadline_and_operators_decide_by_the_model(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench()
    registry = bench.registry
    items = [instance(port, BASE, serves=["chat"]) for port in (1, 2, 3)]
    await registry.send_heartbeats(items)
    bench.store.silence(items[0])
    found = await registry.get_all_instances("chat", healthy_only=True)
    assert ports(found) == [2, 3]
    await registry.override(items[1], healthy=False, reason="x")
    found = await registry.get_all_instances("chat", healthy_only=True)
    assert ports(found) == [3]
    await registry.override(items[2], enabled=False, reason="x")
    assert await registry.select_one_health_instance("chat") is None
    with pytest.raises(NoneAvailable):
        async with registry.reserve("chat"):
            pass


async def test_an_alias_may_stand_for_an_adapter(registry: RedisModelRegistry) -> None:
    await registry.register_instance(instance(1, BASE, serves=["lora-1"]))
    await registry.register_instance(instance(2, BASE, serves=["lora-2"]))
    for name, port in (("lora-1", 1), ("lora-2", 2)):
        await registry.set_alias("prod", name)
        assert ports(await registry.get_all_instances("prod")) == [port]
        await registry.set_alias(f"my {name}", name)
        async with registry.reserve(f"my {name}") as reservation:
            made = reservation.instance
            assert made.port == port
            assert await registry.in_flight("prod") == {made.identity: 1}


async def test_pages_go_on_from_the_model_to_those_that_serve_it_too(
    real: RedisModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "READ_PAGE", 7)
    for own, others in ((0, 20), (7, 7), (14, 1), (6, 8), (20, 0)):
        name = f"chat-{own}-{others}"
        model = f"base-{own}"
        await real.send_heartbeats(
            [
                *instances(own, name),
                *(instance(100 + n, model, serves=[name]) for n in range(others)),
            ]
        )
        found = await real.get_all_instances(name)
        assert [item.model_name for item in found] == [name] * own + [model] * others
        assert len({item.identity for item in found}) == own + others


async def test_a_select_among_many_takes_each_as_often(
    make_bench: MakeBench,
) -> None:
    """300 own and 100 that serve it too: samples of 32 show both in proportion."""
    real = (await make_bench()).registry
    await real.send_heartbeats(
        [*instances(300, "chat"), *instances(100, BASE, serves=["chat"])]
    )
    seen = Counter[Identity]()
    for _ in range(400):
        found = await real._executor.run(real._operations.sample("chat"))
        assert len(found) == 32
        seen.update(item.identity for item in found)
    others = sum(n for identity, n in seen.items() if identity.model_name == BASE)
    assert 0.23 < others / seen.total() < 0.27
    assert len(seen) == 400
    assert max(seen.values()) < 4 * seen.total() / 400


async def test_of_several_partitions_all_are_asked(make_bench: MakeBench) -> None:
    registry = (await make_bench(partitions=4)).registry
    models = [f"base-{n}" for n in range(8)]
    await registry.send_heartbeats(
        [
            instance(1, "chat"),
            *(instance(2, model, serves=["chat", model + "+"]) for model in models),
        ]
    )
    found = await registry.get_all_instances("chat")
    assert found[0].model_name == "chat"
    assert {item.model_name for item in found} == {"chat", *models}
    for model in models:
        (one,) = await registry.get_all_instances(model + "+", healthy_only=True)
        assert one.model_name == model
        await registry.set_alias("prod", model + "+")
        (one,) = await registry.get_all_instances("prod")
        assert one.model_name == model
        chosen = await registry.select_one_health_instance("prod")
        assert chosen == one

    picked = Counter[str]()
    for _ in range(80):
        chosen = await registry.select_one_health_instance("chat")
        assert chosen is not None
        picked[chosen.model_name] += 1
    assert len(picked) == 9

    async def hold() -> None:
        async with registry.reserve("chat") as reservation:
            held.append(reservation.instance.identity)
            if len(held) == 90:
                all_hold.set()
            await enough.wait()

    held: list[Identity] = []
    all_hold, enough = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(90):
            group.create_task(hold())
        await all_hold.wait()
        assert sum((await registry.in_flight("chat")).values()) == 90
        assert len(set(held)) == 9
        enough.set()
    assert sum((await registry.in_flight("chat")).values()) == 0


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_full_partition_sends_on_to_another(
    make_bench: MakeBench, partitions: int
) -> None:
    registry = (await make_bench(partitions=partitions)).registry
    models = [f"base-{n}" for n in range(5)]
    await registry.send_heartbeats(
        [instance(1, m, serves=["chat"], metadata={"capacity": 1}) for m in models]
    )
    holds = [registry.reserve("chat") for _ in models]
    taken = [await hold.__aenter__() for hold in holds]
    assert {one.instance.model_name for one in taken} == set(models)
    with pytest.raises(NoneAvailable, match="full, 5 in flight of capacity 5"):
        async with registry.reserve("chat"):
            pass
    for hold in holds:
        await hold.__aexit__(None, None, None)


async def test_explain_knows_an_instance_by_every_name(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(1, BASE, serves=["lora-1"]))
    await registry.register_instance(instance(2, BASE, serves=["lora-1"]))
    await registry.override(instance(2, BASE), enabled=False, reason="x")
    model = await registry.explain("lora-1")
    assert (model.known, model.selectable) == (True, 1)
    assert {(one.model_name, one.port, one.reason) for one in model.instances} == {
        (BASE, 1, None),
        (BASE, 2, Reason.DISABLED),
    }
    one = await registry.explain(Identity("lora-1", "10.0.0.1", 2))
    assert (one.model_name, one.reason) == (BASE, Reason.DISABLED)
    gone = await registry.explain(Identity("lora-1", "10.0.0.1", 3))
    assert (gone.model_name, gone.reason) == ("lora-1", Reason.UNKNOWN)


async def test_an_alias_takes_the_place_of_those_that_serve_its_name(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(1, BASE, serves=["chat"]))
    await registry.register_instance(instance(2, "other"))
    await registry.set_alias("chat", "other")
    assert ports(await registry.get_all_instances("chat")) == [2]
    await registry.remove_alias("chat")
    assert ports(await registry.get_all_instances("chat")) == [1]


def test_the_sync_face_does_the_same(sync_registry: SyncModelRegistry) -> None:
    sync_registry.register_instance(instance(1, BASE, serves=["lora-1"]))
    (found,) = sync_registry.get_all_instances("lora-1")
    with sync_registry.reserve("lora-1") as reservation:
        assert reservation.instance == found
        assert sync_registry.in_flight("lora-1") == {found.identity: 1}


LIVES = st.tuples(
    st.sampled_from(["a", "b"]),  # model
    st.integers(1, 3),  # port
    st.sampled_from(["register", "beat", "goodbye", "remove"]),
    st.lists(st.sampled_from(["a", "b", "c", "d | e"]), max_size=3),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(LIVES, max_size=25))
def test_index_and_records_agree_whatever_happens(
    sync_registry: SyncModelRegistry,
    server: Server,
    calls: list[tuple[str, int, str, list[str]]],
) -> None:
    server.raw.flushall()
    wanted: dict[Identity, set[str]] = {}
    for model, port, what, serves in calls:
        item = instance(port, model, serves=serves)
        more: dict[str, Any] = {"remove_from_registry": what == "remove"}
        if what == "register":
            sync_registry.register_instance(item)
            wanted[item.identity] = {*serves, model}
        elif what == "beat":
            sync_registry.send_heartbeat(item)
            wanted.setdefault(item.identity, {*serves, model})
        else:
            sync_registry.deregister_instance(item.model_copy(update=more))
            if what == "remove":
                wanted.pop(item.identity, None)
    server.store.check()
    for name in ("a", "b", "c", "d | e"):
        found = sync_registry.get_all_instances(name)
        assert {one.identity for one in found} == {
            identity for identity, names in wanted.items() if name in names
        }
        assert len(found) == len({one.identity for one in found})
