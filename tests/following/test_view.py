"""Views: answers from memory that converge, say how fresh they are, and outlive Redis (R3, R4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redis_registry import (
    Health,
    InvalidInstance,
    Load,
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    RegistryClosed,
    RegistryUnavailable,
    View,
)
from tests.conftest import FAST, SLOW, Bench, Server
from tests.following.test_watch import until_view
from tests.helpers import connect, instance, instances
from tests.places import Place

MODEL = "glm@llm"


def ports(view: View, model: str = MODEL) -> list[int]:
    return [item.port for item in view.instances(model)]


def states(view: View) -> dict[int, str]:
    return {item.port: str(item.state) for item in view.instances(MODEL)}


async def test_it_shows_what_there_is_and_what_changes(
    registry: RedisModelRegistry,
) -> None:
    for item in instances(3):
        await registry.register_instance(item)
    async with registry.view() as view:
        assert ports(view) == [1, 2, 3]
        await registry.register_instance(instance(4, "other"))
        await until_view(lambda: ports(view, "other") == [4], "a new model is seen")
        await registry.set_readiness(instance(1), Readiness.NOT_READY, "busy")
        await until_view(lambda: not view.instances(MODEL)[0].ready, "not ready")
        await registry.deregister_instance(instance(2, remove_from_registry=True))
        await until_view(lambda: ports(view) == [1, 3], "a removed one is gone")
        assert view.models() == [MODEL, "other"]
        assert view.instances("no such") == ()
        assert view.staleness_secs < 3
        assert not view.stale
        assert (view.source, view.error) == ("redis", None)


async def test_a_snapshot_is_the_same_object_until_its_model_changes(
    real: RedisModelRegistry,
) -> None:
    await real.register_instance(instance(1))
    await real.register_instance(instance(2, "other"))
    async with real.view() as view:
        mine, others = view.snapshot(MODEL), view.snapshot("other")
        assert view.snapshot(MODEL) is mine
        await real.register_instance(instance(3))
        await until_view(lambda: len(ports(view)) == 2, "it is seen")
        assert view.snapshot("other") is others
        assert len(mine.instances) == 1


@pytest.mark.parametrize("partitions", [1, 4])
async def test_it_equals_a_read_after_anything(server: Server, partitions: int) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, namespace="eq", partitions=partitions, **FAST
    ) as registry:
        names = [f"m{n}:|" for n in range(5)]
        crowd = [instance(p, n, metadata={"p": p}) for n in names for p in range(1, 9)]
        await registry.send_heartbeats(crowd)
        async with registry.view() as view, registry.view(names[:2]) as some:
            for item in crowd[::3]:
                await registry.deregister_instance(item)
            for item in crowd[1::5]:
                await registry.set_readiness(item, Readiness.DRAINING, "why|:%")
            await registry.send_heartbeats(crowd[:4])
            truth = {i.identity: i for i in await registry.get_all_model_instances()}

            def told(item: ModelInstance) -> dict[str, object]:
                return item.model_dump(exclude={"last_heartbeat", "state"})

            def equal() -> bool:
                found = {item.identity: item for item in view.instances()}
                return {k: told(v) for k, v in found.items()} == {
                    k: told(v) for k, v in truth.items()
                }

            await until_view(equal, "the view equals Redis")
            assert some.models() == names[:2]
    server.raw.flushall()


async def test_one_that_falls_silent_leaves_at_its_timeout_without_any_checker(
    real: RedisModelRegistry,
) -> None:
    """FAST: timeout 1 s; nobody sweeps."""
    await real.send_heartbeats(instances(2))
    async with real.view() as view:
        start = time.monotonic()
        async with beating(real, instance(2)):
            await until_view(
                lambda: states(view)[1] == "overdue", "the silent one leaves"
            )
            secs = time.monotonic() - start
            assert 0.9 < secs < 1.6
            assert states(view)[2] == "healthy"
            assert view.select(MODEL) == view.instances(MODEL)[1]
            await real.send_heartbeat(instance(1))
            await until_view(
                lambda: states(view)[1] == "healthy", "its beat brings it back"
            )


@asynccontextmanager
async def beating(
    registry: RedisModelRegistry, item: ModelInstance
) -> AsyncGenerator[None]:
    """Somebody whose heartbeats come every 0.2 s."""

    async def beat() -> None:
        while True:
            await registry.send_heartbeat(item)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_reserving_from_a_view_goes_by_labels_and_zones(
    real: RedisModelRegistry,
) -> None:
    crowd = [
        instance(1, zone="a", metadata={"gpu": "a100"}),
        instance(2, zone="b", metadata={"gpu": "a100"}),
        instance(3, zone="b", metadata={"gpu": "l4"}),
        instance(4, zone="a", metadata={"gpu": "a100"}, weight=0),
    ]
    await real.send_heartbeats(crowd)
    async with real.view() as view:
        assert [i.port for i in view.able(MODEL)] == [1, 2, 3]
        assert [i.port for i in view.able(MODEL, "gpu=a100")] == [1, 2]
        assert [i.port for i in view.able(MODEL, "gpu=a100", zones=("b",))] == [2]
        assert [i.port for i in view.able(MODEL, "gpu=l4", zones=("a",))] == [3]
        assert view.able(MODEL, "gpu=l4", zones=("a",), strict_zones=True) == ()
        picked = set[int]()
        for _ in range(4):
            async with real.reserve(
                MODEL, candidates=lambda: view.able(MODEL, "gpu=a100")
            ) as reservation:
                picked.add(reservation.instance.port)
        assert picked == {1, 2}


async def test_who_chooses_by_load_gets_what_is_reported_now(
    real: RedisModelRegistry,
) -> None:
    await real.send_heartbeats(instances(3))
    async with real.view() as view:
        assert view.select(MODEL, "least_loaded") is not None
        busy = [Load(in_flight=n) for n in (5, 0, 9)]
        await real.send_heartbeats(instances(3), busy)
        await until_view(
            lambda: (
                {str(view.select(MODEL, "least_loaded")) for _ in range(9)}
                == {str(view.instances(MODEL)[1])}
                and view.instances(MODEL)[1].load == busy[1]
            ),
            "the idle one is chosen",
        )
        await real.set_alias("prod", MODEL, author="me")
        await until_view(lambda: len(view.instances("prod")) == 3, "the alias is seen")
        assert view.select("prod", "least_loaded") == view.instances(MODEL)[1]
        assert view._live.loads.wanted == {MODEL}
        with view.outstanding.using(view.instances(MODEL)[1]):
            pass


async def test_a_flip_is_seen_once_it_is_made(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3))
    async with bench.registry.view() as view:
        bench.store.silence(instance(2))
        await bench.sweep()
        await until_view(lambda: states(view)[2] == "unhealthy", "the flip is seen")
        assert [i.port for i in view.instances(MODEL) if i.healthy] == [1, 3]


async def test_callbacks_hear_which_models_changed_and_may_fail(
    real: RedisModelRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[frozenset[str]] = []

    def fail(models: frozenset[str]) -> None:
        raise ValueError(models)

    async with real.view() as view:
        view.on_change(fail)
        end = view.on_change(heard.append)
        await real.send_heartbeats([instance(1, "a"), instance(1, "b")])
        await until_view(
            lambda: set[str]().union(*heard) == {"a", "b"}, "both are heard of"
        )
        end()
        heard.clear()
        await real.register_instance(instance(2, "a"))
        await until_view(lambda: ports(view, "a") == [1, 2], "it is seen")
    assert heard == []
    assert "on_change callback failed" in caplog.text


async def test_views_of_the_same_models_share_one_mirror(
    real: RedisModelRegistry,
) -> None:
    await real.register_instance(instance(1))
    async with real.view() as one, real.view() as other:
        assert one.snapshot(MODEL) is other.snapshot(MODEL)


async def test_it_goes_on_while_redis_is_away_and_says_so(
    own_server: Place, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        await registry.send_heartbeats(instances(3))
        async with registry.view() as view:
            own_server.kill()
            await until_view(lambda: view.staleness_secs > 1.5, "it knows its age")
            assert ports(view) == [1, 2, 3]
            assert view.select(MODEL) is not None
            await until_view(lambda: view.stale, "it says that it is stale")
            assert isinstance(view.error, RegistryUnavailable)
            own_server.start()
            await until_view(lambda: not view.stale and not view.error, "it is back")
            await registry.register_instance(instance(4))
            await until_view(lambda: ports(view) == [1, 2, 3, 4], "it follows again")


async def test_removed_by_hand_is_removed_at_once(real: RedisModelRegistry) -> None:
    """An explained drop to zero is no reason to hold back."""
    await real.register_instance(instance(1))
    async with real.view() as view:
        await real.deregister_instance(instance(1, remove_from_registry=True))
        took = await until_view(lambda: view.instances(MODEL) == (), "it is gone")
    assert took < 0.5


async def test_a_start_without_redis_is_a_clear_error(tmp_path: Path) -> None:
    async with RedisModelRegistry.from_url(
        "redis://127.0.0.1:1", run_checker=False, **FAST
    ) as registry:
        with pytest.raises(RegistryUnavailable, match=r"nothing to show after 0\.5 s"):
            async with registry.view(
                wait_secs=0.5, snapshot_path=tmp_path / "never written"
            ):
                pass
        async with registry.view(wait_secs=0) as view:
            assert view.instances() == ()
            assert view.source is None
            assert view.stale


async def test_a_cold_start_without_redis_shows_the_snapshot_and_says_so(
    own_server: Place, tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "some" / "view.snapshot"
    odd = instance(7, "é:|%", metadata={"b": [1, {"c": None}]}, weight=2.5)
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        await registry.send_heartbeats([*instances(3), odd])
        await registry.set_readiness(instance(3), Readiness.DRAINING, "bye")
        async with registry.view(snapshot_path=path) as view:
            known = view.instances()
    own_server.kill()

    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        async with registry.view(snapshot_path=path) as view:
            assert view.source == "disk"
            assert view.instances() == known
            assert view.select(MODEL) is not None
            assert 0 < view.staleness_secs < 60
            own_server.start()
            await until_view(lambda: view.source == "redis", "Redis takes over")
            assert not view.stale
        async with registry.view(MODEL, snapshot_path=path) as view:
            assert view.models() == [MODEL]


@pytest.mark.parametrize("content", [b"", b"\x00", b"{}", b"\x81\xa6format\x63"])
async def test_a_damaged_snapshot_is_told_and_left_alone(
    real: RedisModelRegistry,
    tmp_path: Path,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "view"
    path.write_bytes(content)
    await real.register_instance(instance(1))
    async with real.view(snapshot_path=path) as view:
        assert ports(view) == [1]
        await until_view(lambda: "can't be read" in caplog.text, "it is told")


async def test_an_old_snapshot_does_not_bring_back_what_redis_does_not_know(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "view"
    options: dict[str, Any] = {**FAST, "heartbeat_timeout_secs": 0.3}
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **options
    ) as registry:
        await registry.send_heartbeats(instances(3))
        async with registry.view(snapshot_path=path):
            pass
        await registry.deregister_instance(instance(1, remove_from_registry=True))
        await asyncio.sleep(0.3)  # until this epoch is older than one timeout
        async with registry.view(snapshot_path=path) as view:
            assert ports(view) == [2, 3]


@pytest.mark.parametrize("models", ["", " ", [], ["a", ""], "x" * 600])
async def test_names_that_no_model_can_have_are_refused(
    real: RedisModelRegistry, models: str | list[str]
) -> None:
    with pytest.raises(InvalidInstance, match="give names of models"):
        real.view(models)


async def test_a_view_outside_its_block_says_so(real: RedisModelRegistry) -> None:
    view = real.view()
    with pytest.raises(RegistryClosed, match="inside its with block"):
        view.instances()


async def test_a_view_is_opened_once_at_a_time(real: RedisModelRegistry) -> None:
    async with real.view() as view:
        with pytest.raises(RegistryClosed, match="open already"):
            async with view:
                pass
        assert view.instances() == ()


async def test_a_cancelled_start_leaves_nothing(
    real: RedisModelRegistry, server: Server
) -> None:
    connect(server.url).close()
    task = asyncio.create_task(real.view().__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_state_is_protected_only_while_it_is_kept(
    real: RedisModelRegistry,
) -> None:
    await real.register_instance(instance(1))
    async with real.view() as view:
        assert view.instances(MODEL)[0].state is Health.HEALTHY
