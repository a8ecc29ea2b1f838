"""What one release has written the other can read, and does not lose (S4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from redis_registry import (
    FormatMismatch,
    Identity,
    ModelInstance,
    RedisModelRegistry,
    Selector,
    SyncModelRegistry,
)
from redis_registry.testing import Standalone
from tests.following.test_watch import until_view
from tests.helpers import Store, connect
from tests.upgrade.conftest import Enlist, Member

WORKER: dict[str, Any] = {"model_name": "llama", "host": "10.0.0.7", "port": 8000}


@pytest.fixture
def redis() -> Iterator[Standalone]:
    with Standalone() as made:
        yield made


@pytest.fixture
def store(redis: Standalone) -> Iterator[Store]:
    raw = connect(redis.url)
    yield Store(raw)
    raw.close()


@pytest.fixture
def old(redis: Standalone, enlist: Enlist) -> Member:
    member = enlist("old", redis.url)
    member.ready()
    return member


@pytest.fixture
async def new(redis: Standalone) -> AsyncIterator[RedisModelRegistry]:
    async with RedisModelRegistry.from_url(
        redis.url, heartbeat_timeout_secs=3, run_checker=False
    ) as registry:
        yield registry


async def test_a_record_of_the_new_outlives_the_calls_of_the_old(
    old: Member, new: RedisModelRegistry, store: Store
) -> None:
    given = ModelInstance(
        **WORKER, zone="a", weight=3, serves=["lora"], metadata={"gpu": "h100"}
    )
    await new.register_instance(given)
    await new.override(Selector(model="llama"), weight=2, reason="test")
    before = store.record(given)

    assert old.call("send_heartbeat", WORKER) == [True]
    assert old.call("set_readiness", WORKER, "not_ready", "busy") == [True]
    assert old.call("set_readiness", WORKER, "ready") == [True]

    after = store.record(given)
    kept = {b"spec", b"serves"}
    assert {f: after[f] for f in kept} == {f: before[f] for f in kept}
    (read,) = await new.get_all_instances("lora")
    assert (read.serves, read.metadata, read.zone) == (["lora"], {"gpu": "h100"}, "a")
    assert read.weight == 2, "the decision holds"
    (told,) = old.call("get_all_instances", "llama")
    assert (told["weight"], told["zone"], told["overrides"]) == (2, "a", read.overrides)


async def test_what_the_old_has_written_is_read(
    old: Member, new: RedisModelRegistry, store: Store
) -> None:
    wanted = {**WORKER, "zone": "b", "weight": 5.0, "metadata": {"n": [1, "x"]}}
    old.call("register_instance", wanted)
    async with new.view() as view:
        for found in (await new.get_all_instances("llama"), view.instances("llama")):
            (one,) = found
            assert {name: getattr(one, name) for name in wanted} == wanted
    explained = await new.explain(Identity(**WORKER))
    assert explained.selectable


async def test_what_the_old_forgets_leaves_nothing(
    old: Member, new: RedisModelRegistry, store: Store
) -> None:
    """It knows nothing of who serves a name: what it leaves there goes with the next read."""
    given = ModelInstance(**WORKER, serves=["lora"])
    await new.register_instance(given)
    old.call("deregister_instance", {**WORKER, "remove_from_registry": True})
    assert await new.get_all_instances("lora") == []
    store.check()


async def test_names_that_the_old_has_taken_away_find_it_no_more(
    old: Member, new: RedisModelRegistry, store: Store
) -> None:
    await new.register_instance(ModelInstance(**WORKER, serves=["lora", "other"]))
    old.call("register_instance", {**WORKER, "serves": ["other"]})
    assert await new.get_all_instances("lora") == []
    (found,) = await new.get_all_instances("other")
    assert found.serves == ["other"]
    async with new.view() as view:
        assert view.instances("lora") == ()


async def test_an_alias_of_the_old_is_followed_one_of_the_new_has_no_effect_on_it(
    old: Member, new: RedisModelRegistry
) -> None:
    await new.register_instance(ModelInstance(**WORKER))
    old.call("set_alias", "prod", "llama")
    async with new.view() as view:
        (one,) = await new.get_all_instances("prod")
        assert one.model_name == "llama"
        assert view.instances("prod")
        old.call("set_alias", "soon", "llama")
        await until_view(lambda: bool(view.instances("soon")), "told by an event too")
    await new.set_alias("prod", "llama")  # it is so already
    assert [a.alias for a in await new.aliases()] == ["prod", "soon"]

    await new.set_alias("next", "llama")
    found = {n: old.call("get_all_instances", n) for n in ("prod", "next")}
    assert {name: len(some) for name, some in found.items()} == {"prod": 1, "next": 0}


async def test_an_unknown_format_is_refused_by_all_faces_of_both(
    redis: Standalone, old: Member, new: RedisModelRegistry, store: Store
) -> None:
    await new.register_instance(ModelInstance(**WORKER))
    store.raw.hset(store.key("meta"), "format", "2")
    with pytest.raises(FormatMismatch, match="format 2, this release speaks 1"):
        await new.get_all_instances("llama")
    with (
        SyncModelRegistry.from_url(redis.url) as sync,
        pytest.raises(FormatMismatch, match="format 2"),
    ):
        sync.get_all_instances("llama")
    told = old.call("get_all_instances", "llama")
    assert "FormatMismatch" in told["error"]
    assert "format 2" in told["error"]
