"""Adapters that come and go while a worker is announced."""

from __future__ import annotations

from typing import Literal

import pytest

from redis_registry import (
    InvalidInstance,
    ModelInstance,
    RedisModelRegistry,
    SyncModelRegistry,
)
from tests.conftest import Server
from tests.helpers import instance, until
from tests.workers.conftest import QUICK

pytestmark = pytest.mark.usefixtures("no_tasks_left")


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_a_worker_says_what_it_serves_as_adapters_come_and_go(
    server: Server,
    worker_side: RedisModelRegistry,
    sender: Literal["thread", "process"],
) -> None:
    async def found(name: str) -> list[ModelInstance]:
        return await worker_side.get_all_instances(name, healthy_only=True)

    item = instance(serves=["a"])
    async with worker_side.announce(item, sender=sender) as announced:
        assert await announced.ready()
        assert await announced.serve(["b", "c"])
        assert announced.instance.serves == ["b", "c"]
        (one,) = await found("b")
        assert (one.ready, one.incarnation) == (True, announced.instance.incarnation)
        assert await found("a") == []
        assert await announced.not_ready("x")
        assert await announced.serve([])
        (one,) = await worker_side.get_all_instances("glm@llm")
        assert (one.serves, one.reason) == ([], "x"), "readiness is as it was"

        assert await announced.serve(["d"])
        assert await announced.ready()
        server.raw.flushall()

        async def back() -> bool:
            return [one.serves for one in await found("d") if one.ready] == [["d"]]

        await until(back, "it is registered as it was last said", within_secs=3)
        with pytest.raises(InvalidInstance, match=r"serves\.1"):
            await announced.serve(["ok", ""])
        with pytest.raises(InvalidInstance, match="serves"):
            await announced.serve("lora")  # its letters were served
        with pytest.raises(InvalidInstance, match="at most 256"):
            await announced.serve(map(str, range(257)))
        assert await found("d")


def test_the_sync_face_does_the_same(server: Server) -> None:
    with (
        SyncModelRegistry.from_url(server.url, **QUICK) as registry,
        registry.announce(instance()) as announced,
    ):
        assert announced.ready()
        assert announced.serve(["a"])
        assert registry.select_one_health_instance("a")
        before = len(server.store.events())
        assert announced.serve(["a"])
        assert len(server.store.events()) == before, "no change, no event"
