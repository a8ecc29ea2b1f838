"""What a view shows on though Redis has lost it (R4): whom, which words, and for how long."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from redis_registry import Kind, Readiness, RedisModelRegistry, View
from redis_registry.core.mirror import Mirror
from redis_registry.store.following import Entry
from redis_registry.store.replies import Page
from redis_registry.testing import Proxy
from redis_registry.wire.codec import encode_spec
from redis_registry.wire.raw_rows import said_later
from tests.conftest import FAST, SLOW, Bench, Server
from tests.following.test_view import MODEL, beating, ports, states
from tests.following.test_watch import next_of, until_view
from tests.helpers import instance, instances
from tests.places import Place


async def test_a_flushed_redis_does_not_empty_it(server: Server) -> None:
    """Living workers are back within two heartbeats; who is not, goes after one timeout."""
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **FAST
    ) as registry:
        await registry.send_heartbeats(instances(3))
        async with registry.view() as view:
            start = time.monotonic()
            server.raw.flushall()
            await until_view(lambda: "protected" in states(view).values(), "")
            assert set(states(view)) == {1, 2, 3}
            await registry.register_instance(instance(2))
            await until_view(lambda: states(view)[2] == "healthy", "one is back")
            assert view.select(MODEL) is not None
            assert states(view)[1] == "protected"
            async with beating(registry, instance(2)):
                await until_view(lambda: set(states(view)) == {2}, "the lost ones go")
            assert time.monotonic() - start >= 0.9


@asynccontextmanager
async def one_of_two_lost(
    server: Server, registry: RedisModelRegistry
) -> AsyncGenerator[View]:
    """A view after a flush: it keeps the first one, for 3 s; the second one is back."""
    await registry.send_heartbeats([instance(1, heartbeat_timeout_secs=3), instance(2)])
    async with registry.view() as view, beating(registry, instance(2)):
        await until_view(lambda: ports(view) == [1, 2], "it sees all")
        server.raw.flushall()
        await until_view(
            lambda: states(view) == {1: "protected", 2: "healthy"}, "one is back"
        )
        yield view


@pytest.mark.damages
async def test_a_gap_soon_after_a_flush_does_not_empty_it(
    server: Server, real: RedisModelRegistry
) -> None:
    """What was kept for a timeout is kept for the rest of it."""
    key = server.store.key
    async with one_of_two_lost(server, real) as view:
        meta = server.raw.hgetall(key("meta"))
        revision = int(meta[b"rev"]) + 1
        head = f"{meta[b'epoch'].decode()}|ready|x|x|1"
        with server.raw.pipeline(transaction=True) as both:
            both.hset(key("meta"), "rev", revision)
            both.xadd(key("events"), {head: f"{MODEL}:h:1|no|row"}, id=f"{revision}-0")
            both.execute()
        await until_view(lambda: view.resyncs["unreadable"] > 0, "it reads anew")
        assert states(view) == {1: "protected", 2: "healthy"}
        await until_view(lambda: 1 not in states(view), "nobody keeps it longer")


@pytest.mark.damages
async def test_who_is_removed_in_a_gap_soon_after_a_flush_is_gone(
    server: Server, real: RedisModelRegistry
) -> None:
    """The entry that shows that some are missing is of the removal itself."""
    key = server.store.key
    async with one_of_two_lost(server, real) as view:
        await real.register_instance(instance(3))
        await until_view(lambda: 3 in ports(view), "it comes")
        meta = server.raw.hgetall(key("meta"))
        revision = int(meta[b"rev"]) + 2
        head, about = f"{meta[b'epoch'].decode()}|removed|x|x|1", f"{MODEL}:10.0.0.1:3"
        with server.raw.pipeline(transaction=True) as all_of_it:
            all_of_it.delete(key(f"i:{about}"))
            all_of_it.hset(key("meta"), "rev", revision)
            all_of_it.xadd(key("events"), {head: about}, id=f"{revision}-0")
            all_of_it.execute()
        await until_view(lambda: view.resyncs["trimmed"] > 0, "it reads anew")
        assert states(view) == {1: "protected", 2: "healthy"}


@pytest.mark.damages
async def test_an_epoch_that_begins_in_the_future_keeps_nobody_for_longer(
    server: Server, real: RedisModelRegistry
) -> None:
    """Redis's clock was put back by an hour while it was away."""
    await real.send_heartbeats(instances(2))
    async with real.view() as view, beating(real, instance(2)):
        await until_view(lambda: ports(view) == [1, 2], "it sees all")
        start = time.monotonic()
        with server.raw.pipeline(transaction=True) as both:
            both.delete(server.store.key(f"i:{MODEL}:10.0.0.1:1"))
            later_us = server.store.now_us() + 3_600_000_000
            both.hset(server.store.key("meta"), "epoch", f"0123abcd-{later_us}")
            both.execute()
        await until_view(lambda: "protected" in states(view).values(), "it is kept")
        await until_view(lambda: ports(view) == [2], "and forgotten")
        assert time.monotonic() - start < 3


@pytest.mark.damages
@pytest.mark.parametrize(
    ("field", "damage"),
    [
        ("spec", b"\xc1"),
        ("spec", b"\x92\x01\x05"),
        ("spec", b"\x92\x01\x81\xa1m\x05"),
        ("life", b"nonsense"),
        ("terms", b"x"),
    ],
)
async def test_a_record_that_cannot_be_read_is_left_out_and_in_nobodys_way(
    server: Server, bench: Bench, field: str, damage: bytes
) -> None:
    registry, key = bench.registry, bench.store.key
    await registry.send_heartbeats(instances(3))
    server.raw.hset(key(f"i:{MODEL}:10.0.0.1:1"), field, damage)
    async with registry.view() as view:
        assert ports(view) == [2, 3]
        server.raw.hset(key("meta"), "epoch", f"0123abcd-{bench.store.now_us()}")
        await until_view(lambda: view.resyncs["new epoch"] > 0, "it reads anew")
        assert ports(view) == [2, 3]
        await registry.send_heartbeat(instance(4))
        await until_view(lambda: ports(view) == [2, 3, 4], "it goes on")
    server.raw.flushall()


async def test_who_beat_at_the_former_master_until_now_is_not_missed_at_the_new_one(
    server: Server, bench: Bench
) -> None:
    """Found by chaos, seed 9046: there were two masters for 3 s, so the epoch was not young any more."""
    await bench.registry.send_heartbeats(instances(3))
    async with bench.registry.view() as view:
        await until_view(lambda: set(states(view)) == {1, 2, 3}, "it sees all")
        # What a failover leaves that began 5 minutes ago, and was heard of just now.
        elsewhere = f"0123abcd-{bench.store.now_us() - 300_000_000}"
        with server.raw.pipeline(transaction=True) as both:
            for port in (1, 2):
                both.delete(bench.store.key(f"i:{MODEL}:10.0.0.1:{port}"))
            both.hset(bench.store.key("meta"), "epoch", elsewhere)
            both.execute()
        await until_view(lambda: view.resyncs["new epoch"] > 0, "it is told")
        assert states(view) == {1: "protected", 2: "protected", 3: "healthy"}
    server.raw.flushall()


async def test_a_readiness_that_redis_lost_is_believed_for_a_timeout(
    server: Server, real: RedisModelRegistry
) -> None:
    """Found by chaos: a crash lost `ready`, and the next beat that says it again was 0.7 s off."""
    registry, key = real, server.store.key
    starting = instances(
        3, incarnation="life", readiness=Readiness.STARTING, heartbeat_timeout_secs=3
    )
    for item in starting:
        await registry.register_instance(item, order=1)
    lost = [server.raw.hgetall(key(f"i:{MODEL}:10.0.0.1:{n}")) for n in (1, 2, 3)]
    for item, word in zip(starting, ("ready", "draining", "ready"), strict=True):
        await registry.set_readiness(item, Readiness(word), "so", order=2)

    def shown(view: View) -> dict[int, tuple[str, str | None]]:
        return {i.port: (i.readiness.value, i.reason) for i in view.instances(MODEL)}

    said = {1: ("ready", "so"), 2: ("draining", "so"), 3: ("ready", "so")}
    async with registry.view() as view, registry.watch() as watch:
        await until_view(lambda: shown(view) == said, "it sees all")
        await next_of(watch, Kind.RESYNC)
        with server.raw.pipeline(transaction=True) as all_of_them:
            for port, record in enumerate(lost, 1):
                all_of_them.delete(key(f"i:{MODEL}:10.0.0.1:{port}"))
                all_of_them.hset(key(f"i:{MODEL}:10.0.0.1:{port}"), mapping=record)
            epoch = f"0123abcd-{server.store.now_us()}"
            all_of_them.hset(key("meta"), "epoch", epoch)
            all_of_them.execute()
        resync = await next_of(watch, Kind.RESYNC)
        assert {i.readiness for i in resync.snapshot or ()} == {Readiness.STARTING}
        assert shown(view) == said
        await registry.set_readiness(starting[0], Readiness.READY, "again", order=2)
        told = await next_of(watch, Kind.READY)
        assert told.before
        assert told.before.readiness is Readiness.STARTING
        assert shown(view) == said | {1: ("ready", "again")}
        await until_view(
            lambda: shown(view)[3] == ("starting", None), "who does not say it again"
        )
        assert shown(view) == {
            1: ("ready", "again"),
            2: ("starting", None),
            3: ("starting", None),
        }
    server.raw.flushall()


@pytest.mark.standalone("a proxy stands before one server")
async def test_what_was_removed_while_nobody_listened_is_not_kept_after_a_restart(
    own_server: Place, no_tasks_left: None
) -> None:
    """Its absence is explained: the stream that outlived the restart says so."""
    with Proxy(own_server.port) as proxy:
        async with (
            RedisModelRegistry.from_url(
                own_server.url, run_checker=False, **SLOW
            ) as writer,
            RedisModelRegistry.from_url(
                proxy.url, run_checker=False, **SLOW
            ) as registry,
            registry.view() as view,
        ):
            await writer.send_heartbeats(instances(3))
            await until_view(lambda: ports(view) == [1, 2, 3], "all are seen")
            proxy.refusing = True
            proxy.cut()
            gone = instance(2, remove_from_registry=True)
            await writer.deregister_instance(gone)
            own_server.kill()
            own_server.start()
            proxy.refusing = False
            await until_view(lambda: ports(view) == [1, 3], "the removed one is gone")


# --- words, without Redis ---------------------------------------------------------------------

LIFE = "a-life"
NO_WORD = ""


def row(
    word: str,
    why: str = NO_WORD,
    life: str = LIFE,
    *,
    health: str = "1",
    spec: bytes = b"",
) -> bytes:
    """An instance's row; its word is a letter of ``lib/record.lua``."""
    spec = spec or encode_spec(instance(1))
    about = (
        f"{MODEL}:10.0.0.1:1|11{word}|60000:{life}|{health}|{health}|5|9|1||{why}|||"
    )
    return about.encode() + spec


def mirror_of(raw: bytes) -> Mirror:
    mirror = Mirror()
    mirror.add(0, Page("e", 1, [raw], None))
    return mirror


def after_a_loss(heard: bytes, found: bytes, age_secs: float = 0.0) -> Mirror:
    """A mirror that had heard one row, and finds the other in a new epoch."""
    mirror = mirror_of(heard)
    mirror.snapshot(MODEL)
    mirror.take_over(0, mirror_of(found), age_secs=age_secs)
    return mirror


def shown(mirror: Mirror) -> Sequence[tuple[str, bool | None]]:
    return [(i.readiness.value, i.healthy) for i in mirror.snapshot(MODEL).instances]


def event(kind: str, raw: bytes, revision: int = 2) -> Entry:
    return Entry(0, revision, f"e|{kind}|c|a|1".encode(), raw)


@pytest.mark.parametrize(
    ("heard", "found", "later"),
    [
        (row("r", "6:2:"), row("s", "5:1:"), True),
        (row("r", "6:2:"), row("s"), True),
        (row("s", "5:1:"), row("r", "6:2:"), False),
        (row("r", "6:2:"), row("r", "6:2:"), False),
        (row("w", "7:2:no%20progress"), row("r", "6:2:"), True),
        (row("r"), row("s"), False),
        (row("d", "7:0:by%20hand"), row("r", "6:0:"), False),
        (row("r", "6:2:", ""), row("s", "5:1:", ""), False),
        (row("s", "", "b-life"), row("r", "6:2:"), True),
        (row("r", "6:2:"), row("s", "", "b-life"), False),
        (row("d", "6:2:", health="g"), row("d", "6:2:"), True),
        (row("d", "6:2:"), row("d", "5:1:", health="g"), False),
    ],
    ids=[
        *("number", "first number", "older", "the same", "evidence", "no numbers"),
        *("by hand", "no life", "newer life", "older life", "goodbye", "goodbye kept"),
    ],
)
def test_the_later_word(heard: bytes, found: bytes, later: bool) -> None:
    assert said_later(heard, found) is later


@pytest.mark.parametrize("kind", ["updated", "healthy", "ejected", "probing"])
def test_what_is_told_of_something_else_does_not_take_a_word_away(kind: str) -> None:
    """Neither while the view is read anew, nor after it."""
    draining, ready = row("d", "6:2:"), row("r", "5:1:")
    mirror = after_a_loss(draining, ready)
    mirror.apply(event(kind, ready))
    assert shown(mirror) == [("draining", True)]

    mirror = mirror_of(draining)
    mirror.snapshot(MODEL)
    mirror.apply(event(kind, ready), keep=True)
    fresh = mirror_of(ready)
    mirror.take_over(0, fresh, age_secs=0.0, gone={f"{MODEL}:10.0.0.1:1"})
    assert shown(mirror) == [("draining", True)]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("not_ready", row("n", "7:1:by%20hand")),
        ("updated", row("n", "7:3:")),
        ("registered", row("n", "7:1:", "b-life")),
    ],
    ids=["a word", "a greater number", "a newer life"],
)
def test_a_newer_word_ends_it(kind: str, raw: bytes) -> None:
    mirror = after_a_loss(row("d", "6:2:"), row("r", "5:1:"))
    mirror.apply(event(kind, raw))
    assert shown(mirror) == [("not_ready", True)]
    assert mirror.kept(0) == {}


def test_a_goodbye_that_redis_lost_is_believed() -> None:
    mirror = after_a_loss(row("d", "6:2:", health="g"), row("r", "5:1:"))
    assert shown(mirror) == [("draining", False)]
    assert [i.healthy for i in mirror.held(0)] == [True], "as Redis has it"
    mirror.take_over(0, Mirror(), age_secs=0.0)
    assert shown(mirror) == [], "nobody keeps who has left"


def test_a_row_that_could_not_be_read_says_nothing() -> None:
    unreadable = row("r", "6:2:", spec=b"\x92\x63\x80")
    assert shown(after_a_loss(unreadable, row("s", "5:1:"))) == [("starting", True)]


def test_it_is_kept_for_its_own_timeout() -> None:
    """60 s; whatever that of the reader is."""
    draining, ready = row("d", "6:2:"), row("r", "5:1:")
    assert shown(after_a_loss(draining, ready, 59.9)) == [("draining", True)]
    assert shown(after_a_loss(draining, ready, 60.0)) == [("ready", True)]
    kept = mirror_of(ready)
    kept.take_over(0, Mirror(), age_secs=59.9)
    assert len(shown(kept)) == 1
    kept.take_over(0, Mirror(), age_secs=60.0)
    assert shown(kept) == []


def test_an_unreadable_record_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    mirror = mirror_of(row("r", spec=b"\xc1"))
    for load in range(5):
        mirror.report(MODEL, {f"{MODEL}:10.0.0.1:1": b"{}" + b" " * load})
        assert shown(mirror) == []
    assert caplog.text.count("record unreadable") == 1
