"""Aliases: one name that stands for a model, re-pointed from one moment on."""

from __future__ import annotations

import asyncio

import pytest

from redis_registry import (
    InvalidOverride,
    Kind,
    LimitReached,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.wire.aliases import MAX_ALIASES
from tests.conftest import MakeBench, Server
from tests.helpers import instance, instances


async def test_reads_and_selects_of_an_alias_answer_with_the_model(
    registry: RedisModelRegistry,
) -> None:
    for version in ("v1", "v2"):
        await registry.register_instance(instance(1, version))
    made = await registry.set_alias("prod", " v1 ", author="ann")
    assert (made.alias, made.model_name, made.author) == ("prod", "v1", "ann")
    (found,) = await registry.get_all_instances("prod")
    assert found.model_name == "v1"
    chosen = await registry.select_one_health_instance("prod")
    assert chosen is not None
    assert chosen.model_name == "v1"

    await registry.set_alias("prod", "v2")
    (found,) = await registry.get_all_instances("prod", healthy_only=True)
    assert found.model_name == "v2"
    assert [alias.model_name for alias in await registry.aliases()] == ["v2"]
    assert await registry.remove_alias("prod")
    assert not await registry.remove_alias("prod")
    assert await registry.get_all_instances("prod") == []
    assert len(await registry.get_all_model_instances()) == 2


async def test_an_alias_stands_for_a_model_of_any_partition(
    make_bench: MakeBench,
) -> None:
    registry = (await make_bench(partitions=5)).registry
    for number in range(10):
        model = f"m|{number}:"
        await registry.send_heartbeats(instances(3, model))
        await registry.set_alias("prod", model)
        found = await registry.get_all_instances("prod")
        assert {(item.model_name, item.port) for item in found} == {
            (model, port) for port in (1, 2, 3)
        }
        chosen = await registry.select_one_health_instance("prod")
        assert chosen is not None
        assert chosen.model_name == model


async def test_more_than_a_page_is_read_through_an_alias(
    real: RedisModelRegistry,
) -> None:
    await real.register_instance(instance(1))  # then there is a connection: all in turn
    await real.send_heartbeats(instances(2300))
    await real.set_alias("prod", "glm@llm")
    found = await real.get_all_instances("prod")
    assert [item.port for item in found] == list(range(1, 2301))


async def test_it_is_re_pointed_at_one_moment(
    real: RedisModelRegistry, server: Server
) -> None:
    """No reader ever sees both models, or none."""
    for version in ("v1", "v2"):
        await real.send_heartbeats(instances(20, version))
    await real.set_alias("prod", "v1")
    over = asyncio.Event()
    seen: set[frozenset[str]] = set()

    async def read() -> None:
        async with RedisModelRegistry.from_url(
            server.url, run_checker=False
        ) as registry:
            while not over.is_set():
                found = await registry.get_all_instances("prod")
                assert len(found) == 20
                seen.add(frozenset(item.model_name for item in found))

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(100):
        await real.set_alias("prod", f"v{number % 2 + 1}")
    over.set()
    await asyncio.gather(*readers)
    assert seen == {frozenset({"v1"}), frozenset({"v2"})}


async def test_the_alias_wins_over_instances_of_its_name(
    real: RedisModelRegistry,
) -> None:
    for model in ("prod", "v1"):
        await real.register_instance(instance(1, model))
    await real.set_alias("prod", "v1")
    (found,) = await real.get_all_instances("prod")
    assert found.model_name == "v1"
    assert len(await real.get_all_model_instances()) == 2


async def test_it_is_followed_once_and_chains_are_refused(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.set_alias("b", "c")
    with pytest.raises(InvalidOverride, match="is an alias itself, of 'c'"):
        await real.set_alias("a", "b")
    with pytest.raises(InvalidOverride, match="'b' is an alias of it"):
        await real.set_alias("c", "d")
    for alias, model in (("a", "a"), ("", "x"), ("x", " "), ("x" * 513, "y")):
        with pytest.raises(InvalidOverride):
            await real.set_alias(alias, model)
    # Two operators at the same moment may still make one.
    server.raw.hset(server.store.of("a").key("aliases"), "a", "1:b:me")
    await real.register_instance(instance(1, "b"))
    (found,) = await real.get_all_instances("a")
    assert found.model_name == "b"


async def test_each_change_is_one_event(
    real: RedisModelRegistry, server: Server
) -> None:
    made = await real.set_alias("prod | 1", "v:1", author="ann ops")
    assert await real.set_alias("prod | 1", "v:1", author="bob") == made
    await real.remove_alias("prod | 1", author="bob")
    events = server.store.of("prod | 1").events(Kind.ALIAS_SET, Kind.ALIAS_REMOVED)
    one, two = events
    assert (one.subject, one.alias, two.alias) == ("prod | 1", made, made)
    assert (one.at, two.cause) == (made.at, "by bob")


@pytest.mark.one_partition("it is of one partition")
async def test_there_is_a_bound(real: RedisModelRegistry, server: Server) -> None:
    await real.set_alias("prod", "v1")
    more = {f"a{n}": "1:m:me" for n in range(MAX_ALIASES - 1)}
    server.raw.hset(server.store.key("aliases"), mapping=more)
    with pytest.raises(LimitReached, match="remove some"):
        await real.set_alias("one more", "v1")
    await real.set_alias("prod", "v2")


def test_the_sync_face_does_the_same(sync_registry: SyncModelRegistry) -> None:
    registry = sync_registry
    registry.register_instance(instance())
    alias = registry.set_alias("prod", "glm@llm")
    assert registry.aliases() == [alias]
    made = registry.override(instance(), weight=0, reason="why")
    assert registry.overrides() == [made]
    (found,) = registry.get_all_instances("prod")
    assert found.overrides == [made.name]
    assert registry.select_one_health_instance("prod") is None
    assert registry.clear_override(made.name)
    assert registry.select_one_health_instance("prod") is not None
    assert registry.remove_alias("prod")
