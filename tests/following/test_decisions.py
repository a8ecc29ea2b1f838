"""What operators decide, in views and watches (W6, R3)."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from redis_registry import Kind, RedisModelRegistry, Selector, View
from redis_registry.core.decisions import Decisions
from redis_registry.store.following import Entry
from redis_registry.store.replies import Page
from tests.conftest import SLOW, Server
from tests.following.test_watch import next_of, take, until_view
from tests.helpers import instance, instances
from tests.places import Place

MODEL = "glm@llm"


def weights(view: View, model: str = MODEL) -> list[float | None]:
    return [item.weight for item in view.instances(model)]


async def test_a_view_honours_overrides_from_the_first_to_the_last(
    registry: RedisModelRegistry,
) -> None:
    await registry.send_heartbeats([*instances(2), instance(3, "other")])
    early = await registry.override(instance(1), weight=0, reason="early")
    async with registry.view() as view, registry.view(MODEL) as some:
        assert (weights(view), weights(some)) == ([0, 1], [0, 1])
        turned: set[str] = set()
        view.on_change(turned.update)
        others = view.snapshot("other")
        made = await registry.override(Selector(model="glm*"), weight=5, reason="x")
        for one in (view, some):
            await until_view(lambda v=one: weights(v) == [0, 5], "it is honoured")
        assert view.instances(MODEL)[0].overrides == [made.name, early.name]
        await until_view(lambda: MODEL in turned, "it is told")
        await registry.override(instance(2), draining=True, reason="mine")
        await until_view(lambda: view.select(MODEL) is None, "nobody is left")
        each = [*view.instances(MODEL), *view.instances("other")]
        assert sorted(view.instances(), key=str) == sorted(each, key=str)
        assert others.instances == view.snapshot("other").instances
        for override in await registry.overrides():
            await registry.clear_override(override.name)
        for one in (view, some):
            await until_view(lambda v=one: weights(v) == [1, 1], "it is cleared")


async def test_a_view_notices_the_end_by_itself(real: RedisModelRegistry) -> None:
    await real.register_instance(instance(check_healthy=False))
    async with real.view() as view:
        made = await real.override(
            instance(), enabled=False, reason="x", expires_secs=0.5
        )
        await until_view(lambda: view.select(MODEL) is None, "it is honoured")
        await until_view(lambda: view.select(MODEL) is not None, "it has ended")
        assert made.ends_us is not None
        status = (await real.status())[0]
        assert 0 < status.now.timestamp() * 1e6 - made.ends_us < 1_500_000


async def test_a_view_follows_aliases(real: RedisModelRegistry) -> None:
    for version in ("v1", "v2"):
        await real.register_instance(instance(1, version))
    await real.set_alias("prod", "v1")
    async with real.view() as view:

        def model() -> str | None:
            chosen = view.select("prod")
            return chosen and chosen.model_name

        assert model() == "v1"
        await real.set_alias("prod", "v2")
        await until_view(lambda: model() == "v2", "it is re-pointed")
        await real.remove_alias("prod")
        await until_view(lambda: model() is None, "it is removed")


async def test_one_that_is_replaced_by_one_about_others_is_over(
    real: RedisModelRegistry,
) -> None:
    for model in ("m0", "m1"):
        await real.register_instance(instance(1, model))
    async with (
        real.view("m0") as view,
        real.view() as everything,
        real.watch("m0") as watch,
    ):
        assert (await anext(watch)).kind is Kind.RESYNC
        await real.override(
            Selector(model="m0"), draining=True, reason="x", name="rack"
        )
        assert (await anext(watch)).kind is Kind.OVERRIDDEN
        await until_view(lambda: view.select("m0") is None, "it drains")
        await until_view(lambda: everything.select("m0") is None, "it drains there")
        await real.override(
            Selector(model="m1"), draining=True, reason="x", name="rack"
        )
        await until_view(lambda: view.select("m0") is not None, "it is over")
        await until_view(lambda: everything.select("m0") is not None, "over there too")
        assert (await anext(watch)).kind is Kind.OVERRIDDEN

        await real.set_alias("prod", "m0")
        await until_view(lambda: view.select("prod") is not None, "it is pointed")
        await real.set_alias("prod", "m1")
        await until_view(lambda: view.select("prod") is None, "it is re-pointed")


@pytest.mark.damages
async def test_a_view_tells_of_decisions_that_redis_has_lost(
    real: RedisModelRegistry, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await real.register_instance(instance())
    await real.override(instance(), draining=True, reason="x", name="disk")
    await real.override(
        instance(), weight=2, reason="x", name="short", expires_secs=0.05
    )
    await real.set_alias("prod", "glm@llm")
    async with real.view() as view:
        await until_view(
            lambda: view.instances("prod")[0].overrides == ["disk"], "one ends"
        )
        server.raw.flushall()
        await until_view(lambda: "without decisions" in caplog.text, "it is told")
        (record,) = [r for r in caplog.records if "without decisions" in r.message]
        assert record.__dict__["lost"] == ["disk", "prod"]


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_view_equals_a_read_after_changes_it_missed(
    server: Server, partitions: int
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, namespace="ov", partitions=partitions, **SLOW
    ) as registry:
        names = [f"m{n}" for n in range(5)]
        await registry.send_heartbeats(
            [instance(port, name) for name in names for port in (1, 2)]
        )
        async with registry.view() as view:
            await registry.override(Selector(port=1), weight=0, reason="x", name="a")
            await registry.override(Selector(model="m1"), weight=3, reason="x")
            await registry.set_alias("prod", "m1")
            for key in server.raw.keys("*events"):
                server.raw.xtrim(key, maxlen=0)
            await registry.override(Selector(port=2), enabled=False, reason="x")
            await registry.clear_override("a")
            for name in (*names, "prod"):
                there = await registry.get_all_instances(name)
                await until_view(
                    lambda n=name, t=there: list(view.instances(n)) == t, f"{name} is"
                )
    server.raw.flushall()


async def test_a_cold_start_without_redis_honours_them(
    own_server: Place, tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "view"
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        await registry.send_heartbeats(instances(2))
        await registry.override(instance(1), enabled=False, reason="broken")
        await registry.set_alias("prod", MODEL)
        async with registry.view(snapshot_path=path) as view:
            known = view.instances()
    own_server.kill()
    async with (
        RedisModelRegistry.from_url(
            own_server.url, run_checker=False, **SLOW
        ) as registry,
        registry.view(snapshot_path=path) as view,
    ):
        assert view.source == "disk"
        assert view.instances() == known == view.instances("prod")
        chosen = view.select("prod")
        assert chosen is not None
        assert chosen.port == 2


@pytest.mark.one_partition("an override of no one model is an event in each")
async def test_watches_are_told_what_concerns_them(real: RedisModelRegistry) -> None:
    await real.register_instance(instance())
    async with real.watch() as all_, real.watch(MODEL) as mine:
        for watch in (all_, mine):
            begin = await next_of(watch, Kind.RESYNC)
            assert begin.snapshot is not None
        other = await real.override(Selector(model="other"), weight=0, reason="x")
        made = await real.override(Selector(model="*"), weight=0, reason="x")
        await real.set_alias("x", "y")
        alias = await real.set_alias("prod", MODEL)
        await real.clear_override(made.name, author="me", reason="done")
        told = await take(all_, 5)
        assert [event.override for event in told] == [other, made, None, None, made]
        one, two, three = await take(mine, 3)
        assert (one.kind, one.override) == (Kind.OVERRIDDEN, made)
        assert (two.kind, two.alias) == (Kind.ALIAS_SET, alias)
        assert (three.kind, three.cause) == (Kind.OVERRIDE_CLEARED, "by me: done")


async def test_reading_it_costs_nothing_while_nothing_changes(
    real: RedisModelRegistry,
) -> None:
    await real.send_heartbeats(instances(1000))
    await real.override(Selector(model="*"), weight=2, reason="x")
    async with real.view() as view:
        first = view.snapshot(MODEL)
        start = time.perf_counter()
        assert all(view.snapshot(MODEL) is first for _ in range(1000))
        assert time.perf_counter() - start < 0.1


async def test_pages_and_entries_fit_in_whatever_order_they_come(
    real: RedisModelRegistry, server: Server
) -> None:
    """A page holds every change up to its revision; entries are told in order."""
    run, operations = real._executor.run, real._operations
    pages: list[Page] = []
    names = "abcabc"
    for number, name in enumerate(names):
        await real.override(Selector(port=number + 1), weight=0, reason="x", name=name)
        if number % 2:
            await real.clear_override(name)
        operations._orders.clear()
        pages.append(await run(operations.page(0, "", None)))
    told = [
        Entry(0, int(entry.split(b"-")[0]), *next(iter(fields.items())))
        for entry, fields in server.raw.xrange(server.store.key("events"))
        if b"overrid" in next(iter(fields))
    ]
    expected = {item.name for item in await real.overrides()}
    for place, page in itertools.product(range(len(told) + 1), pages):
        decisions = Decisions()
        for entry in told[:place]:
            decisions.tell(entry, reading=True)
        decisions.add(0, page)
        for entry in told[place:]:
            if entry.revision > page.revision:
                decisions.tell(entry, reading=True)
        assert {item.name for item in decisions.overrides(0)} == expected
