"""Bad records, wrong types, full memory, denied commands: what is refused changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from redis_registry import (
    AccessDenied,
    FormatMismatch,
    InvalidInstance,
    KeyConflict,
    OutOfMemory,
    PartitionMismatch,
    RedisModelRegistry,
    RegistryUnavailable,
    Selector,
)
from tests.conftest import SLOW, Bench, Server
from tests.helpers import connect, instance, instances
from tests.places import Place


def dump(server: Server) -> dict[bytes, Any]:
    """Everything but the clock-like fields of meta and lease."""
    found: dict[bytes, Any] = {}
    for key in server.raw.keys("*"):
        if not key.endswith((b":meta", b":lease")):
            found[key] = server.raw.dump(key)
    return found


PARTS = [
    "models",
    "m:glm@llm",
    "deadlines",
    "down",
    "living",
    "i:glm@llm:10.0.0.1:8001",
    "events",
]


@pytest.mark.damages
@pytest.mark.parametrize("part", PARTS)
async def test_a_key_of_another_type_is_refused_before_any_change(
    bench: Bench, part: str
) -> None:
    registry, server = bench.registry, bench.server
    await registry.send_heartbeats(instances(2))
    await registry.deregister_instance(instance(2))
    server.raw.delete(bench.store.key(part))
    server.raw.set(bench.store.key(part), "somebody else's")
    before = dump(server)

    for call in (registry.register_instance, registry.deregister_instance):
        with pytest.raises(KeyConflict, match="nothing was changed"):
            await call(instance())

    assert dump(server) == before


@pytest.mark.damages
async def test_so_are_what_operators_decide(bench: Bench) -> None:
    registry, server = bench.registry, bench.server
    for part in ("overrides", "aliases"):
        server.raw.set(bench.store.key(part), "somebody else's")
    before = dump(server)
    with pytest.raises(KeyConflict):
        await registry.override(instance(), weight=0, reason="x")
    with pytest.raises(KeyConflict):
        await registry.set_alias("prod", "glm@llm")
    assert dump(server) == before


class Heard:
    """What was counted."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        self.counted[name] += amount

    def observe(self, name: str, secs: float, **labels: str) -> None:
        """Not of interest."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Nor this."""


@pytest.mark.parametrize(
    "field", ["identity", "model_name", "host", "metadata", "reason", "serves"]
)
async def test_what_a_client_lets_through_the_script_refuses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """A faulty client, or one of another make, stores nothing that all readers would read."""
    place = {
        "identity": 0,
        "model_name": 1,
        "host": 2,
        "metadata": 8,
        "reason": 9,
        "serves": 15,
    }
    operations, before = bench.registry._operations, dump(bench.server)
    made = operations._call

    def swollen(name: str, home: int, args: list[Any], *read: Any, **keys: Any) -> Any:
        if name == "register":
            args = [*args]
            args[place[field]] = "x" * 2_000_000
        return made(name, home, args, *read, **keys)

    monkeypatch.setattr(operations, "_call", swollen)
    with pytest.raises(
        InvalidInstance, match=f"{field}: takes 2000000 bytes, the limit is"
    ):
        await bench.registry.register_instance(instance())
    assert dump(bench.server) == before


@pytest.mark.damages
@pytest.mark.parametrize(
    "damage",
    [
        {"spec": b"\xff\xff"},
        {"spec": b""},
        {
            "spec": b"\x92\x01\x81\xa1w\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"
        },  # NaN weight
        {"terms": b"11r|soon:"},
        {"terms": b"nothing"},
        {"terms": b"11r|60000:\xc3\x28"},
        {"life": b"1|now|then|x"},
    ],
    ids=str,
)
async def test_a_broken_record_spoils_no_other(
    bench: Bench, damage: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    await bench.registry.send_heartbeats(instances(3))
    bench.server.raw.hset(
        bench.store.key("i:glm@llm:10.0.0.1:2"), mapping=dict(damage.items())
    )

    bench.registry._operations.telemetry = heard = Heard()

    found = await bench.registry.get_all_instances("glm@llm")

    assert [item.port for item in found] == [1, 3]
    assert "records unreadable" in caplog.text
    assert heard.counted == {"unreadable_records": 1}
    bench.store.age(61, away=False)
    await bench.sweep()
    states = await bench.states()
    states.pop(2, None)  # a flip mends what it writes
    assert states == {1: "unhealthy", 3: "unhealthy"}
    await bench.registry.register_instance(instance(2))
    assert (await bench.states())[2] == "healthy", "registering again mends it"


@pytest.mark.damages
@pytest.mark.parametrize("call", ["send_heartbeat", "deregister_instance", "remove"])
@pytest.mark.parametrize("field", ["terms", "life"])
async def test_a_broken_record_can_be_mended_or_removed(
    bench: Bench, call: str, field: str
) -> None:
    await bench.registry.register_instance(instance())
    key = bench.store.key("i:glm@llm:10.0.0.1:8001")
    bench.server.raw.hset(key, field, "nonsense")

    if call == "remove":
        await bench.registry.deregister_instance(instance(remove_from_registry=True))
        assert await bench.registry.get_all_model_instances() == []
    else:
        await getattr(bench.registry, call)(instance())
        await bench.registry.send_heartbeat(instance())
        await bench.registry.register_instance(instance())
        assert await bench.states() == {8001: "healthy"}


@pytest.mark.damages
async def test_orphans_are_mended_by_the_next_sweep(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3))
    raw, key = bench.server.raw, bench.store.key
    raw.delete(key("i:glm@llm:10.0.0.1:1"))  # a deadline without a hash
    raw.zrem(
        key("deadlines"), bench.store.member(instance(2))
    )  # a hash without a deadline
    raw.zadd(key("deadlines"), {"junk": 5, "a:b:3:x:": 5, "inf:h:1:60000:": "inf"})

    assert (await bench.states())[2] == "overdue", "no deadline: not served"
    await bench.registry.send_heartbeat(instance(2))
    bench.store.age(61, away=False)
    await bench.registry.send_heartbeat(instance(2))
    await bench.sweep()

    assert await bench.states() == {2: "healthy", 3: "unhealthy"}
    raw.zrem(key("deadlines"), "inf:h:1:60000:")  # never overdue, so never looked at
    left = set(bench.store.scores("deadlines"))
    assert left == {"glm@llm:10.0.0.1:2:60000:"}


async def test_a_repeated_call_after_a_lost_reply_has_the_effect_of_one(
    bench: Bench,
) -> None:
    operations, executor = bench.registry._operations, bench.registry._executor
    await bench.registry.register_instance(instance())
    first = await executor.run(operations.register(instance(weight=2.0)))
    second = await executor.run(operations.register(instance(weight=2.0)))
    assert first == second
    await bench.registry.deregister_instance(instance())
    await bench.registry.deregister_instance(instance())
    assert bench.store.kinds(instance()) == ["registered", "updated", "deregistered"]


async def test_records_of_another_format_are_refused_by_name(
    bench: Bench,
) -> None:
    await bench.registry.register_instance(instance())
    bench.server.raw.hset(bench.store.key("meta"), "format", "2")
    with pytest.raises(FormatMismatch, match="are of format 2, this release speaks 1"):
        await bench.registry.send_heartbeat(instance())
    bench.server.raw.hset(bench.store.key("meta"), "format", "1")
    spec = b"\x92\x02\x80"  # msgpack [2, {}]
    key = bench.store.key("i:glm@llm:10.0.0.1:8001")
    bench.server.raw.hset(key, "spec", spec)
    with pytest.raises(FormatMismatch, match="a record is of format 2"):
        await bench.registry.get_all_instances("glm@llm")


@pytest.mark.one_partition("some say how many, some adopt that")
async def test_the_number_of_partitions_is_fixed_by_the_first(server: Server) -> None:
    options: dict[str, Any] = {**SLOW, "run_checker": False}
    async with RedisModelRegistry.from_url(
        server.url, namespace="many", partitions=4, **options
    ) as first:
        for model in "abcdefgh":
            await first.register_instance(instance(model=model))
        assert len(await first.status()) == 4
        assert len(await first.get_all_model_instances()) == 8
        async with RedisModelRegistry.from_url(
            server.url, namespace="many", **options
        ) as adopting:
            found = await adopting.get_all_model_instances(healthy_only=True)
            assert {item.model_name for item in found} == set("abcdefgh")
            assert await adopting.send_heartbeats(found)
        insisting = RedisModelRegistry.from_url(
            server.url, namespace="many", partitions=2, **options
        )
        with pytest.raises(PartitionMismatch, match="4 partitions on record") as caught:
            await insisting.get_all_model_instances()
        assert caught.value.recorded == 4
        await insisting.aclose()
    tags = {key.split(b"}")[0] for key in server.raw.keys("*")}
    assert tags == {b"rr:{many/%d" % n for n in range(4)}
    server.raw.flushall()


async def test_with_memory_full_heartbeats_and_sweeps_go_on(
    own_server: Place, no_tasks_left: None
) -> None:
    raw = connect(own_server.url)
    server = Server("own", own_server, raw)
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW
    ) as registry:
        bench = Bench(registry, server)
        await registry.send_heartbeats(instances(3))
        raw.config_set("maxmemory", "1mb")
        raw.config_set("maxmemory-policy", "noeviction")

        with pytest.raises(OutOfMemory, match="heartbeats and sweeps go on"):
            await registry.register_instance(instance(9))
        await registry.send_heartbeat(instance(1))
        raw.config_set("maxmemory", "0")
        bench.store.age(61, away=False)
        raw.config_set("maxmemory", "1mb")
        await registry.send_heartbeats(instances(2))
        await bench.sweep()
        assert await bench.states() == {1: "healthy", 2: "healthy", 3: "unhealthy"}
        await registry.send_heartbeat(instance(3))
        await registry.deregister_instance(instance(2))
        assert await bench.states() == {1: "healthy", 2: "unhealthy", 3: "healthy"}
        with pytest.raises(OutOfMemory):
            await registry.send_heartbeat(instance(77))
        raw.config_set("maxmemory", "0")
        assert await registry.register_instance(instance(9))
    raw.close()


COMMANDS = """
+ping +evalsha +eval +info +time +hello +client|setname +select
+hmget +hset +hsetnx +hget +hgetall +hlen +hkeys +hrandfield +hdel +del +exists +pexpire +type
+zadd +zrem +zremrangebyrank +zcard +zcount +zscore +zmscore
+zscan +zrange +zrangebylex +zlexcount +zrangebyscore +zrevrange +zrandmember +xadd +xtrim +xlen +xrange +xrevrange
+xread
""".split()  # noqa: SIM905  one word a command, as the guide prints it


ON_A_CLUSTER = ["+cluster|slots", "+asking"]


async def reserve_all_ways(bench: Bench) -> None:
    """Every script of reservations, with every command."""
    registry, home = bench.registry, bench.home
    operations, executor = registry._operations, registry._executor
    await registry.send_heartbeats(instances(3))
    async with registry.reserve("glm@llm") as made:
        holder = registry._reserver.holder.name
        assert await executor.run(operations.renew(home, holder, 0, "other"))
        await executor.run(
            operations.adopt(home, holder, [(7, made.instance.identity)])
        )
        await registry.in_flight("glm@llm")
    await executor.run(operations.unreserve(home, holder, [7]))
    await executor.run(operations.reclaim(home))
    assert set((await registry.in_flight("glm@llm")).values()) == {0}


@pytest.mark.one_partition("it watches one stream")
async def test_a_user_with_only_these_rights_can_do_everything(
    own_server: Place, no_tasks_left: None
) -> None:
    """The list of docs/how-to/operate.md: one key pattern covers the keys that indexes name."""
    raw = connect(own_server.url)
    raw.acl_setuser(
        "app",
        enabled=True,
        passwords=["+secret"],
        keys=["rr:*"],
        commands=[
            *COMMANDS,
            *(ON_A_CLUSTER if "+cluster" in own_server.url else []),
        ],
        reset=True,
    )
    url = own_server.url.replace("//", "//app:secret@")
    async with RedisModelRegistry.from_url(url, run_checker=False, **SLOW) as registry:
        bench = Bench(registry, Server("own", own_server, raw))
        await registry.send_heartbeats(instances(60))
        bench.store.silence(*instances(30))
        await bench.sweep()
        await registry.select_one_health_instance("glm@llm")
        for _ in range(5):
            await registry.report_failure(instance(58))
        await registry.report_success(instance(57))
        await registry.claim_probe(instance(58))
        made = await registry.override(Selector(zone="x"), weight=0, reason="why")
        await registry.override(instance(), weight=0, reason="x", expires_secs=0.001)
        await bench.sweep()
        await registry.set_alias("prod", "glm@llm")
        await registry.get_all_instances("prod", healthy_only=True)
        assert await registry.clear_override(made.name)
        assert await registry.remove_alias("prod")
        await registry.deregister_instance(instance(60))
        await registry.deregister_instance(instance(59, remove_from_registry=True))
        await registry.send_heartbeat(instance(60))
        bench.store.age(90_000, away=False)
        await bench.sweep()
        await bench.sweep()
        bench.store.age(-100, away=True)
        await bench.sweep()
        await bench.checkers[0]._release()
        await reserve_all_ways(bench)
        assert len(await registry.status()) == bench.store.partitions
        async with registry.view() as view, registry.watch() as watch:
            position = (await anext(watch)).position
            assert len(view.instances()) > 0
        await registry.send_heartbeat(instance(7777))
        async with registry.watch(after=position) as watch:
            assert (await anext(watch)).subject == "glm@llm:10.0.0.1:7777"
        raw.acl_setuser("app", enabled=True, commands=["-zadd"])
        with pytest.raises(AccessDenied, match="denies access"):
            await registry.send_heartbeat(instance(60))
    raw.close()


async def test_a_wrong_password_is_tried_once_and_never_shown(
    own_server: Place, no_tasks_left: None
) -> None:
    raw = connect(own_server.url)
    raw.config_set("requirepass", "right")
    raw.auth("right")
    url = own_server.url.replace("//", "//:wrong-secret@")
    async with RedisModelRegistry.from_url(url, run_checker=False) as registry:
        with pytest.raises(AccessDenied) as caught:
            await registry.get_all_model_instances()
    assert "wrong-secret" not in str(caught.value)
    assert sum(entry["count"] for entry in raw.acl_log()) == 1
    raw.close()


async def test_an_unreachable_server_is_a_clear_error_in_time(
    no_tasks_left: None,
) -> None:
    async with RedisModelRegistry.from_url(
        "redis://:hidden@127.0.0.1:1/0", run_checker=False, operation_timeout_secs=0.3
    ) as registry:
        start = asyncio.get_running_loop().time()
        with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:1") as caught:
            await registry.register_instance(instance())
        assert asyncio.get_running_loop().time() - start < 1
        assert "hidden" not in str(caught.value)
        assert caught.value.__cause__ is not None
