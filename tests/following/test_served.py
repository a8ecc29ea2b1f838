"""Views and adapters: every name that an instance serves finds it, from memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_registry import Kind, Load, ModelInstance, OutlierSettings, View
from redis_registry import RedisModelRegistry as Registry
from redis_registry.core.mirror import Mirror
from redis_registry.store.following import Entry
from redis_registry.store.replies import Page
from redis_registry.wire.codec import encode_spec
from redis_registry.wire.keys import identity_text
from tests.conftest import SLOW, MakeBench, Server
from tests.following.test_watch import next_of, take, until_view
from tests.helpers import instance, instances

BASE = "llama@llm"


def ports(view: View, name: str) -> list[int]:
    return [item.port for item in view.instances(name)]


async def test_every_name_finds_it_from_the_first_to_the_last(
    registry: Registry,
) -> None:
    await registry.register_instance(instance(1, BASE, serves=["lora-1", "lora-2"]))
    await registry.register_instance(instance(3, "lora-2"))
    async with registry.view() as view, registry.view("lora-1") as some:
        assert (ports(view, BASE), ports(view, "lora-1")) == ([1], [1])
        assert ports(view, "lora-2") == [3, 1], "its own first"
        assert (view.names(), view.models()) == (
            [BASE, "lora-1", "lora-2"],
            [BASE, "lora-2"],
        )
        assert (ports(some, "lora-1"), ports(some, "lora-2")) == ([1], [1])
        chosen = view.select("lora-1")
        assert chosen == view.instances(BASE)[0]
        before = view.snapshot("lora-1")
        await registry.register_instance(instance(9, "another"))
        await until_view(lambda: ports(view, "another") == [9], "a change elsewhere")
        assert view.snapshot("lora-1") is before, "the same while nothing changes"

        await registry.register_instance(instance(2, BASE, serves=["lora-1"]))
        for one in (view, some):
            await until_view(lambda v=one: ports(v, "lora-1") == [1, 2], "it is found")
        await registry.register_instance(instance(1, BASE, serves=["lora-2"]))
        for one in (view, some):
            await until_view(lambda v=one: ports(v, "lora-1") == [2], "no more")
        assert ports(some, BASE) == [2], "a view of a name keeps who serves it"
        gone = instance(2, BASE, remove_from_registry=True)
        await registry.deregister_instance(gone)
        for one in (view, some):
            await until_view(lambda v=one: ports(v, "lora-1") == [], "it is gone")
        assert view.names() == ["another", BASE, "lora-2"]
        assert some.instances() == ()


async def test_what_concerns_the_instance_shows_under_each_name(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(outliers=OutlierSettings(base_ejection_secs=60.0))
    registry = bench.registry
    items = [instance(port, BASE, serves=["chat"]) for port in range(1, 6)]
    await registry.send_heartbeats(items)
    async with registry.view("chat") as view:
        turned: set[str] = set()
        view.on_change(turned.update)

        def able() -> list[int]:
            return [item.port for item in view.able("chat")]

        await registry.override(items[0], enabled=False, reason="x")
        await until_view(lambda: able() == [2, 3, 4, 5], "the operator's decision")
        await until_view(lambda: BASE in turned, "it is told")
        bench.store.silence(items[1])
        await until_view(lambda: able() == [3, 4, 5], "its silence")
        for _ in range(5):
            await registry.report_failure(items[2], "refused")
        await until_view(lambda: able() == [4, 5], "its failures")
        await registry.set_alias("prod", "chat")
        await until_view(
            lambda: (
                len(view.able("prod")) == 2 and view.names() == ["chat", BASE, "prod"]
            ),
            "an alias of an adapter",
        )


async def test_a_probe_is_handed_out_under_any_of_its_names(
    server: Server, no_tasks_left: None
) -> None:
    outliers = OutlierSettings(base_ejection_secs=0.2, max_ejection_secs=0.2)
    async with (
        Registry.from_url(server.url, outliers=outliers, **SLOW) as registry,
        registry.view() as view,
    ):
        items = [instance(port, BASE, serves=["chat"]) for port in (1, 2, 3)]
        await registry.send_heartbeats(items)
        for _ in range(5):
            await registry.report_failure(items[0], "refused")

        def probe() -> ModelInstance | None:
            chosen = view.select("chat")
            return chosen if chosen and chosen.held_out else None

        found: list[ModelInstance] = []

        def tried() -> bool:
            found.extend(filter(None, [probe()]))
            return bool(found)

        await until_view(tried, "its probe is handed out")
        assert found[0].port == 1
        await registry.report_success(found[0])


async def test_who_chooses_an_adapter_by_load_gets_what_its_models_report(
    real: Registry,
) -> None:
    items = [instance(port, BASE, serves=["chat"]) for port in (1, 2)]
    await real.send_heartbeats(items)
    async with real.view() as view:
        view.select("chat", "least_loaded")
        await real.send_heartbeats(items, [Load(in_flight=9), Load(in_flight=0)])
        await until_view(
            lambda: (
                {
                    chosen.port
                    for _ in range(20)
                    if (chosen := view.select("chat", "least_loaded"))
                }
                == {2}
            ),
            "the busy one is avoided",
        )


async def test_a_watch_of_a_model_tells_of_its_own_instances_only(
    real: Registry,
) -> None:
    async with real.watch("chat") as watch:
        await next_of(watch, Kind.RESYNC)
        await real.register_instance(instance(1, BASE, serves=["chat"]))
        await real.register_instance(instance(2, "chat"))
        (event,) = await take(watch, 1)
        assert (event.kind, event.subject) == (Kind.REGISTERED, "chat:10.0.0.1:2")
        position = watch.position
    async with real.watch("chat") as again:
        event = await next_of(again, Kind.RESYNC)
        assert [item.port for item in event.snapshot or ()] == [2]
    await real.register_instance(instance(3, BASE, serves=["chat"]))
    await real.register_instance(instance(4, "chat"))
    async with real.watch("chat", after=position) as resumed:
        (event,) = await take(resumed, 1)
        assert event.subject == "chat:10.0.0.1:4"


async def test_views_of_several_partitions_find_them_all(make_bench: MakeBench) -> None:
    registry = (await make_bench(partitions=4)).registry
    models = [f"base-{n}" for n in range(6)]
    await registry.send_heartbeats([instance(1, m, serves=["chat"]) for m in models])
    async with registry.view() as view, registry.view("chat") as some:
        for one in (view, some):
            assert {item.model_name for item in one.instances("chat")} == set(models)
        assert some.position.count(":") == 1, "that of a watch of the model"
        await registry.send_heartbeats(instances(2, "chat"))
        for one in (view, some):
            await until_view(lambda v=one: len(ports(v, "chat")) == 8, "its own too")
            assert [item.model_name for item in one.instances("chat")[:2]] == [
                "chat"
            ] * 2


async def test_a_start_from_disk_finds_them_too(
    real: Registry, server: Server, tmp_path: Any
) -> None:
    await real.register_instance(instance(1, BASE, serves=["chat"]))
    await real.register_instance(instance(2, "other"))
    path = tmp_path / "view"
    async with real.view(snapshot_path=path):
        pass
    options: dict[str, Any] = {**SLOW, "run_checker": False}
    async with (
        Registry.from_url("redis://127.0.0.1:1", **options) as away,
        away.view("chat", snapshot_path=path, wait_secs=1.5) as view,
    ):
        assert view.source == "disk"
        assert ports(view, "chat") == [1]
        assert view.models() == [BASE]


# --- the mirror alone ----------------------------------------------------------------------

CHANGES = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=3)),
)


def row_of(model: str, port: int, serves: list[str]) -> bytes:
    item = instance(port, model, serves=serves)
    said = f"{identity_text(item.identity)}|11r|60000:|1|1|1|9000000000000000|1||||"
    return said.encode() + b"|" + encode_spec(item)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CHANGES, max_size=20),
    st.lists(CHANGES, max_size=8),
    st.sampled_from([None, frozenset({"c"}), frozenset({"a", "d"})]),
    st.booleans(),
)
def test_a_mirror_finds_by_names_what_it_was_told(
    told: list[tuple[str, int, list[str] | None]],
    missed: list[tuple[str, int, list[str] | None]],
    names: frozenset[str] | None,
    resync: bool,
) -> None:
    mirror, wanted = Mirror(names), dict[tuple[str, int], set[str]]()
    revision = 0

    def tell(mirror: Mirror, model: str, port: int, serves: list[str] | None) -> None:
        nonlocal revision
        revision += 1
        about, kind = f"{model}:10.0.0.1:{port}".encode(), b"removed"
        wanted.pop((model, port), None)
        if serves is not None:
            about, kind = row_of(model, port, serves), b"updated"
            found = {model, *serves}
            if names is None or names & found:
                wanted[model, port] = found
        mirror.apply(Entry(0, revision, b"e|" + kind + b"|c|a|1", about))

    for change in told:
        tell(mirror, *change)
    if resync:
        fresh = Mirror(names, touched={})
        rows = [
            row_of(model, port, sorted(found - {model}))
            for (model, port), found in wanted.items()
        ]
        for change in missed:
            tell(fresh, *change)
        fresh.add(0, Page("e", revision - len(missed), rows, None))
        mirror.take_over(0, fresh)
    for name in ("a", "b", "c", "d"):
        found = {
            (item.model_name, item.port) for item in mirror.snapshot(name).instances
        }
        assert found == {key for key, finds in wanted.items() if name in finds}
        assert mirror.snapshot(name) is mirror.snapshot(name) or not found
    assert set(mirror.served) == {
        name for (model, _), finds in wanted.items() for name in finds - {model}
    }
    assert set(mirror.models) == {model for model, _ in wanted}


@pytest.mark.damages
async def test_a_model_whose_loads_cannot_be_read_keeps_no_others_waiting(
    server: Server, no_tasks_left: None
) -> None:
    """As when its node is away; which of them is read first is anybody's guess."""
    items = [instance(1, f"m{number}") for number in range(8)]
    async with Registry.from_url(server.url, **SLOW) as registry:
        await registry.send_heartbeats(items)
        async with registry.view() as view:
            for item in items:
                view.select(item.model_name, "least_loaded")
            for item in items[:4]:
                server.raw.set(server.store.key(f"m:{item.model_name}"), "damaged")
            await registry.send_heartbeats(items, [Load(in_flight=7)] * len(items))
            await until_view(
                lambda: all(
                    one.load and one.load.in_flight == 7
                    for item in items[4:]
                    for one in view.instances(item.model_name)
                ),
                "the loads of those that can be read",
            )


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_a_view_of_names_keeps_the_order_of_registration(
    registry: Registry,
) -> None:
    """Whichever name was read first, and whoever also serves another one."""
    await registry.register_instance(instance(2, BASE, serves=["a", "z"]))
    await registry.register_instance(instance(1, BASE))
    await registry.register_instance(instance(3, BASE, serves=["a"]))
    async with registry.view(["a", BASE, "z"]) as view:
        assert ports(view, BASE) == [2, 1, 3]
        assert ports(view, "a") == [2, 3]


@pytest.mark.usefixtures("quick_switches")
def test_threads_may_read_while_a_mirror_is_replaced() -> None:
    names = [f"n{number}" for number in range(200)]
    rows = [row_of("m", port, names) for port in range(1, 3)]

    def read_anew() -> Mirror:
        fresh = Mirror(touched={})
        fresh.add(0, Page("e", 1, rows, None))
        return fresh

    mirror, ended = read_anew(), threading.Event()

    def read() -> None:
        while not ended.is_set():
            mirror._joined = {}
            for name in names:
                mirror.snapshot(name)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(200):
            mirror.take_over(0, read_anew())
    finally:
        ended.set()
        reader.join()
