"""Announcing through controllers: two real replicas on a real server, killed and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from redis_registry import (
    ConfigurationError,
    Health,
    InvalidInstance,
    Kind,
    ModelInstance,
    Readiness,
    RemoteRegistry,
    SyncModelRegistry,
    SyncRemoteRegistry,
)
from redis_registry.embedded import free_port
from tests.conftest import Server
from tests.helpers import instance, wait_for
from tests.replica import Replica

TIMEOUT_SECS = 3.0
QUICK: dict[str, Any] = {"heartbeat_timeout_secs": 0.9, "attempt_timeout_secs": 0.3}

MakeReplica = Callable[..., Replica]


async def see(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; the senders' threads go on."""
    await asyncio.to_thread(wait_for, condition, what)


@pytest.fixture
def controller(server: Server, replicas: list[Replica], tmp_path: Path) -> MakeReplica:
    """Start one more controller, and wait until it answers."""

    def build(*options: str, port: int | None = None) -> Replica:
        times = ("--heartbeat-timeout-secs", "3", "--heartbeat-interval-secs", "0.1")
        log = tmp_path / f"log{len(replicas)}"
        replica = Replica("--url", server.url, *times, *options, log=log, port=port)
        replicas.append(replica)
        replica.up()
        return replica

    return build


@pytest.fixture
def reader(server: Server) -> Iterator[SyncModelRegistry]:
    with SyncModelRegistry.from_url(server.url, heartbeat_timeout_secs=3) as registry:
        yield registry


def only(reader: SyncModelRegistry) -> ModelInstance:
    (found,) = reader.get_all_instances("glm@llm")
    return found


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_a_whole_life_through_a_controller(
    controller: MakeReplica,
    reader: SyncModelRegistry,
    server: Server,
    sender: Literal["thread", "process"],
) -> None:
    who = instance(metadata={"engine": "toy"}, zone="z1", weight=2.0)
    async with (
        RemoteRegistry([controller().base], **QUICK) as registry,
        registry.announce(who, sender=sender) as announced,
    ):
        found = only(reader)
        assert found.incarnation == announced.instance.incarnation
        assert (found.metadata, found.zone, found.weight) == (
            {"engine": "toy"},
            "z1",
            2,
        )
        assert found.heartbeat_timeout_secs == 0.9
        assert found.readiness is Readiness.STARTING
        assert reader.select_one_health_instance("glm@llm") is None
        assert await announced.ready()
        assert reader.select_one_health_instance("glm@llm") is not None
        announced.report(in_flight=2, kv=0.5)
        await see(lambda: _in_flight(reader) == 2, "the load arrives")
        assert await announced.not_ready("no disk")
        assert (only(reader).readiness, only(reader).reason) == (
            Readiness.NOT_READY,
            "no disk",
        )
        announced.report(in_flight=0)
    assert not only(reader).healthy
    assert server.store.kinds(who) == [
        "registered",
        "ready",
        "not_ready",
        "draining",
        "deregistered",
    ]


def _in_flight(reader: SyncModelRegistry) -> int | None:
    load = only(reader).load
    return load and load.in_flight


async def test_a_word_that_redis_lost_is_said_again_to_a_controller_that_is_new(
    controller: MakeReplica, reader: SyncModelRegistry, server: Server
) -> None:
    """Their host died: with the master that alone had `ready`, and the one who knew of it."""
    who, key = instance(), server.store.key
    hash_key = key("i:glm@llm:10.0.0.1:8001")
    first = controller()
    async with (
        RemoteRegistry([first.base], **QUICK) as registry,
        registry.announce(who) as announced,
    ):
        before = server.raw.hgetall(hash_key)
        assert await announced.ready()
        first.end(signal.SIGKILL)
        with server.raw.pipeline(transaction=True) as all_of_it:
            all_of_it.delete(hash_key)
            all_of_it.hset(hash_key, mapping=before)
            epoch = f"0123abcd-{server.store.now_us()}"
            all_of_it.hset(key("meta"), "epoch", epoch)
            all_of_it.execute()
        assert only(reader).readiness is Readiness.STARTING
        await asyncio.to_thread(controller, port=first.port)
        await see(lambda: only(reader).readiness is Readiness.READY, "it says it again")
    server.raw.flushall()


def test_the_same_for_threads(
    controller: MakeReplica, reader: SyncModelRegistry
) -> None:
    with (
        SyncRemoteRegistry([controller().base], **QUICK) as registry,
        registry.announce(instance()) as announced,
    ):
        announced.ready()
        assert only(reader).ready
    assert not only(reader).healthy


@pytest.mark.timeout(120)
def test_one_controller_killed_then_the_other_stopped_nobody_misses_a_beat(
    controller: MakeReplica,
    reader: SyncModelRegistry,
    server: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Timeout 3 s, a beat each second; a heartbeat that meets a dead one moves within 1 s."""
    first, second = controller(), controller()
    bases = [first.base, second.base]
    beats: dict[int, list[float]] = {port: [] for port in range(1, 9)}

    def watch(secs: float) -> None:
        end = time.monotonic() + secs
        while time.monotonic() < end:
            for found in reader.get_all_instances("glm@llm"):
                assert found.healthy
                assert found.state is Health.HEALTHY
                assert found.last_heartbeat is not None
                at = found.last_heartbeat.timestamp()
                seen = beats[found.port]
                if not seen or seen[-1] != at:
                    seen.append(at)
            time.sleep(0.02)

    with ExitStack() as stack:
        for port in beats:
            registry = SyncRemoteRegistry(bases, heartbeat_timeout_secs=TIMEOUT_SECS)
            stack.enter_context(registry)
            stack.enter_context(registry.announce(instance(port))).ready()
        watch(2)
        first.end(signal.SIGKILL)
        watch(4)
        controller(port=first.port)
        watch(1)
        second.process.send_signal(signal.SIGSTOP)
        watch(5)
        second.process.send_signal(signal.SIGCONT)
    gaps = [
        later - earlier for seen in beats.values() for earlier, later in pairwise(seen)
    ]
    with capsys.disabled():
        print(f"\n  longest time between two heartbeats: {max(gaps):.2f} s")  # noqa: T201
    assert max(gaps) < 1.0 + 1.0, "an interval, and less than a second to move"
    assert server.store.events(Kind.UNHEALTHY) == []


async def test_a_flushed_redis_learns_all_again_within_two_beats(
    controller: MakeReplica, reader: SyncModelRegistry, server: Server
) -> None:
    async with (
        RemoteRegistry([controller().base], **QUICK) as registry,
        registry.announce(instance(metadata={"a": 1})) as announced,
    ):
        await announced.ready()
        announced.report(in_flight=3)
        await see(lambda: _in_flight(reader) == 3, "the load arrives")
        server.store.raw.flushall()
        flushed = time.monotonic()
        await see(lambda: len(reader.get_all_instances("glm@llm")) == 1, "back")
        await see(lambda: _in_flight(reader) == 3, "with its load")
        assert time.monotonic() - flushed < 2 * 0.3 + 0.2
        assert only(reader).ready
        assert only(reader).metadata == {"a": 1}
        announced.report(in_flight=0)


async def test_a_newer_life_supersedes_and_the_older_is_told(
    controller: MakeReplica, reader: SyncModelRegistry
) -> None:
    told: list[ModelInstance] = []
    async with (
        RemoteRegistry([controller().base], **QUICK) as registry,
        registry.announce(instance(), on_superseded=told.append) as older,
        RemoteRegistry([controller().base], **QUICK) as another,
        another.announce(instance()) as newer,
    ):
        await newer.ready()
        await see(lambda: older.superseded and bool(told), "the older one is told")
        assert only(reader).incarnation == newer.instance.incarnation
    assert told == [older.instance]


async def test_it_begins_without_a_controller_and_is_there_once_one_is(
    controller: MakeReplica, reader: SyncModelRegistry
) -> None:
    port = free_port()
    async with (
        RemoteRegistry(
            [f"http://127.0.0.1:{port}"], operation_timeout_secs=0.2, **QUICK
        ) as registry,
        registry.announce(instance()) as announced,
    ):
        assert await announced.ready() is False
        await asyncio.to_thread(controller, port=port)
        await see(lambda: bool(reader.get_all_instances("glm@llm")), "registered")
        await see(lambda: only(reader).ready, "and ready")


async def test_a_controller_whose_redis_is_away_is_left_for_another(
    controller: MakeReplica, reader: SyncModelRegistry, replicas: list[Replica]
) -> None:
    good = controller()
    lost = Replica(
        "--url", f"redis://127.0.0.1:{free_port()}", log=good.log.with_name("lost")
    )
    replicas.append(lost)
    await see(lambda: lost.health() == 503, "it answers that it can't")
    for _ in range(4):  # each begins with one of the two at random
        async with (
            RemoteRegistry([lost.base, good.base], **QUICK) as registry,
            registry.announce(instance()) as announced,
        ):
            assert await announced.ready()
            assert only(reader).ready


async def test_the_controller_connects_back_before_an_instance_is_ready(
    controller: MakeReplica,
    reader: SyncModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("REDIS_REGISTRY_REVERSE_CHECK_SECS", "0.2")
    port = free_port()
    who = instance(port).model_copy(update={"host": "127.0.0.1"})
    async with (
        RemoteRegistry(
            [controller().base], operation_timeout_secs=0.5, **QUICK
        ) as registry,
        registry.announce(who) as announced,
    ):
        assert await announced.ready() is False
        found = only(reader)
        assert found.readiness is Readiness.NOT_READY
        assert found.healthy
        assert f"to 127.0.0.1:{port}: " in (found.reason or "")
        assert "ready is not taken, will say it again" in caplog.text
        with socket.create_server(("127.0.0.1", port)):
            await see(lambda: only(reader).ready, "ready once it listens")
        await see(lambda: announced.readiness is Readiness.READY, "and it knows")


async def test_the_sender_follows_the_advice_as_far_as_its_timeout_allows(
    controller: MakeReplica,
    reader: SyncModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_REGISTRY_ADVISED_INTERVAL_SECS", "0.4")
    base = controller().base
    async with RemoteRegistry([base], **QUICK) as registry:
        for advised, timeout in ((0.4, 2.0), (0.3, 0.6)):
            who = instance(heartbeat_timeout_secs=timeout)
            async with registry.announce(who, interval_secs=0.05) as announced:
                life = announced._life
                await see(
                    lambda life=life, secs=advised: life.pace_secs == secs, "it follows"
                )
                seen: set[object] = set()
                end = time.monotonic() + 1.2
                while time.monotonic() < end:
                    seen.add(only(reader).last_heartbeat)
                    await asyncio.sleep(0.01)
                assert 2 <= len(seen) <= 1.2 / (0.9 * advised) + 2


@pytest.mark.parametrize(
    "urls", [[], ["redis://x"], ["a:8000"], ["http://a?x=1"], ["http://"]]
)
def test_what_is_no_controller_is_refused(urls: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="controllers"):
        RemoteRegistry(urls)


def test_the_environment_names_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="controllers"):
        RemoteRegistry()
    monkeypatch.setenv("REDIS_REGISTRY_CONTROLLERS", "http://a:1/,https://b/rr")
    registry = SyncRemoteRegistry()
    assert registry.settings.controllers == ("http://a:1", "https://b/rr")


def test_a_loopback_address_is_refused_where_a_controller_is_elsewhere() -> None:
    local = ModelInstance(model_name="m", host="127.0.0.1", port=1)
    SyncRemoteRegistry(["http://127.0.0.1:1"]).announce(local)
    with pytest.raises(InvalidInstance, match="another one"):
        SyncRemoteRegistry(["http://127.0.0.1:1", "http://c.example"]).announce(local)


def test_a_fork_speaks_through_connections_of_its_own(
    controller: MakeReplica, reader: SyncModelRegistry
) -> None:
    with (
        SyncRemoteRegistry([controller().base], **QUICK) as registry,
        registry.announce(instance(1)) as parent,
    ):
        parent.ready()
        child = os.fork()
        if child == 0:  # pragma: no cover  another process
            code = 1
            with contextlib.suppress(BaseException):
                announced = registry.announce(instance(2)).__enter__()
                announced.ready()
                code = 0
            os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        found = {item.port: item for item in reader.get_all_instances("glm@llm")}
        assert found[1].ready
        assert found[2].ready


def test_more_heartbeats_than_a_request_takes(
    controller: MakeReplica, reader: SyncModelRegistry
) -> None:
    """600 instances of one process: two requests a beat, all alive."""
    with (
        SyncRemoteRegistry([controller().base], heartbeat_timeout_secs=2) as registry,
        ExitStack() as stack,
    ):
        for port in range(1, 601):
            life = registry.announce(instance(port), drain_timeout_secs=0)
            stack.enter_context(life)
        start = time.monotonic()
        wait_for(
            lambda: (
                min(
                    item.last_heartbeat.timestamp()
                    for item in reader.get_all_instances("glm@llm")
                    if item.last_heartbeat
                )
                > time.time() - 1
                and time.monotonic() > start + 2
            ),
            "all have beaten after the last was registered",
        )
        assert all(item.healthy for item in reader.get_all_instances("glm@llm"))
