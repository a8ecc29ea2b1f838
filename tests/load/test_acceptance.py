"""The long acceptance runs, at full size and in real time: ``make test-load``."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from redis_registry import GuardSettings, Kind, SyncModelRegistry
from redis_registry.embedded import EmbeddedServer
from tests.helpers import Store, connect, instance, wait_for
from tests.nodes import Node, nodes

MODEL = "glm@llm"
TIMEOUT_SECS = 3.0
INTERVAL_SECS = 1.0
NODES = 4
SIZE = 1000


def healthy(reader: SyncModelRegistry, model: str = MODEL) -> int:
    return len(reader.get_all_instances(model, healthy_only=True))


def crowd(url: str, *, skewed: bool, checker: bool = True) -> list[Node]:
    skews = [0, 3600, -3600, 3600] if skewed else [0] * NODES
    each = SIZE // NODES
    options = ["--timeout", str(TIMEOUT_SECS), "--interval", str(INTERVAL_SECS)]
    options += ["--checker"] if checker else []
    return [
        Node(url, MODEL, 1 + each * n, each, *options, skew_secs=skews[n])
        for n in range(NODES)
    ]


@pytest.fixture
def reader_of() -> Callable[[str], SyncModelRegistry]:
    def build(url: str) -> SyncModelRegistry:
        return SyncModelRegistry.from_url(
            url, heartbeat_timeout_secs=TIMEOUT_SECS, operation_timeout_secs=30
        )

    return build


@pytest.mark.timeout(300)
def test_skewed_nodes_outages_and_an_empty_restart(
    reader_of: Callable[[str], SyncModelRegistry],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """60 s with clocks wrong by an hour; then a pause; then an empty Redis."""
    with (
        EmbeddedServer() as server,
        reader_of(server.url) as reader,
        nodes(crowd(server.url, skewed=True)),
    ):
        raw = connect(server.url)
        store = Store(raw)
        start, reads = time.monotonic(), 0
        while time.monotonic() < start + 60:
            assert healthy(reader) == SIZE
            reads += 1
            time.sleep(0.1)
        assert store.events(Kind.UNHEALTHY) == []

        server.signal(signal.SIGSTOP)
        time.sleep(3 * TIMEOUT_SECS)
        server.signal(signal.SIGCONT)
        assert healthy(reader) == SIZE, "the first read after the pause"
        until = time.monotonic() + 3 * TIMEOUT_SECS
        while time.monotonic() < until:
            assert healthy(reader) == SIZE
            time.sleep(0.05)
        flips_after_pause = len(store.events(Kind.UNHEALTHY))

        raw.close()
        server.kill()
        server.start()
        restarted = time.monotonic()
        wait_for(lambda: healthy(reader) == SIZE, "all are back", within_secs=10)
        back_secs = time.monotonic() - restarted
        time.sleep(2 * TIMEOUT_SECS)
        assert healthy(reader) == SIZE
        raw = connect(server.url)
        flips_after_restart = len(Store(raw).events(Kind.UNHEALTHY))
        raw.close()
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  skew: 0 of {reads} reads saw a false death; pause: {flips_after_pause} flips; "
            f"empty restart: all back in {back_secs:.2f} s, {flips_after_restart} flips"
        )
    assert flips_after_pause == 0
    assert flips_after_restart == 0
    # Two heartbeats, each with one backoff of the driver loop.
    assert back_secs < 2 * INTERVAL_SECS + 0.5


VICTIMS = 100


@pytest.mark.timeout(300)
def test_detection_times_beside_a_thousand_living(
    reader_of: Callable[[str], SyncModelRegistry],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A hundred workers, each killed at a moment of its own."""
    rng = random.Random(20261124)
    options = ("--timeout", str(TIMEOUT_SECS), "--interval", str(INTERVAL_SECS))
    with EmbeddedServer() as server, reader_of(server.url) as reader:
        raw = connect(server.url)
        with nodes(crowd(server.url, skewed=False)):
            late_read: list[float] = []
            for batch in range(5):
                first = 10_001 + batch * VICTIMS // 5
                victims = [
                    Node(server.url, f"victim-{n}@llm", first + n, 1, *options)
                    for n in range(VICTIMS // 5)
                ]
                with nodes(victims):
                    time.sleep(1)
                    late_read += _kill_and_watch(reader, victims, rng, first)
            time.sleep(1)
            events = Store(raw).events(Kind.UNHEALTHY)
        raw.close()
    late_flip = [
        (event.at - event.instance.last_heartbeat).total_seconds() - TIMEOUT_SECS
        for event in events
        if event.instance is not None and event.instance.last_heartbeat is not None
    ]
    p99 = statistics.quantiles(late_read, n=100)[98]
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  read says unhealthy after timeout + {1000 * statistics.median(late_read):.1f} ms "
            f"(median), {1000 * p99:.1f} ms (p99); flip: + {1000 * max(late_flip):.1f} ms at most; "
            f"{len(late_flip)} flips of {VICTIMS} victims"
        )
    assert len(events) == VICTIMS, "every victim once, and nobody else"
    assert len(late_read) == VICTIMS
    assert min(late_read) >= 0
    assert p99 <= 0.05
    assert max(late_flip) <= 0.5


def _kill_and_watch(
    reader: SyncModelRegistry, victims: list[Node], rng: random.Random, first: int
) -> list[float]:
    """Kill each at a random moment; how late after its deadline a read said so."""
    start = time.monotonic()
    timers = [threading.Timer(rng.uniform(0, 2.0), node.kill) for node in victims]
    for timer in timers:
        timer.start()
    alive = {f"victim-{n}@llm": first + n for n in range(len(victims))}
    late: list[float] = []
    while alive:
        assert time.monotonic() < start + 20, f"still healthy to readers: {alive}"
        for model, port in list(alive.items()):
            found = reader.get_all_instances(model)
            seen = time.time()
            (item,) = [item for item in found if item.port == port]
            if not item.healthy:
                assert item.last_heartbeat is not None
                late.append(seen - item.last_heartbeat.timestamp() - TIMEOUT_SECS)
                del alive[model]
    for timer in timers:
        timer.join()
    return late


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["60 % die", "5 % die", "60 % deregister"])
def test_mass_death(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """500 instances in real time; the dying ones are a process of their own."""
    size, timeout = 500, 2.0
    dying = {"60 % die": 300, "5 % die": 25, "60 % deregister": 300}[how]
    options = ("--timeout", str(timeout), "--interval", "0.5", "--checker")
    guard = GuardSettings()
    with EmbeddedServer() as server:
        raw = connect(server.url)
        store = Store(raw)
        made = [
            Node(server.url, MODEL, 1, dying, *options),
            Node(server.url, MODEL, 1 + dying, size - dying, *options),
            Node(server.url, MODEL, 9000, 0, *options),
        ]
        with (
            nodes(made),
            SyncModelRegistry.from_url(
                server.url, heartbeat_timeout_secs=timeout
            ) as reader,
        ):
            time.sleep(1)
            made[0].kill()
            killed = time.monotonic()
            if how == "60 % deregister":
                for port in range(1, 1 + dying):
                    reader.deregister_instance(instance(port))
            time.sleep(max(0.0, killed + 1.5 * timeout - time.monotonic()))
            holds = reader.status()[0].holds
            wait_for(
                lambda: (
                    healthy(reader) == size - dying and not reader.status()[0].holds
                ),
                "it ends by itself, and all the dead are flipped",
                within_secs=12 * timeout,
            )
            took = time.monotonic() - killed
            states = Counter(str(i.state) for i in reader.get_all_instances(MODEL))
            told = store.events(Kind.GUARD)
            most = _most_flips_in(store, timeout)
        raw.close()
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  {how}: at most {most} flips in any window of {timeout:g} s, holds {[h.scope for h in holds]}, "
            f"{len(told)} guard events, over after {took:.1f} s, {dict(states)}"
        )
    assert states == {"healthy": size - dying, "unhealthy": dying}
    if how == "60 % die":
        # Before it trips at most `share` goes, and then the budget of a window.
        assert most <= (guard.share + guard.budget_share) * size
        assert {hold.scope for hold in holds} == {"*", MODEL}
        assert told
    else:
        assert told == []
        assert took < 2 * timeout + 1


def _most_flips_in(store: Store, window_secs: float) -> int:
    """The most flips that any window of this length saw."""
    times = [event.at.timestamp() for event in store.events(Kind.UNHEALTHY)]
    return max(
        (
            sum(start <= other < start + window_secs for other in times)
            for start in times
        ),
        default=0,
    )
