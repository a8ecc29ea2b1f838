"""What workers are promised, at full size and in real time: :mod:`tests.load.programs`."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from redis_registry import Health, Kind, Readiness, SyncModelRegistry
from redis_registry.embedded import EmbeddedServer
from tests.helpers import Store, connect, instance, wait_for
from tests.load.programs import SHARE, Program, part, programs

MODEL = "glm@llm"


# --- many instances in one process ---------------------------------------------------------------

MANY = 200
SOAK_SECS = 600 * SHARE
SETTLE_SECS = SOAK_SECS / 10
BEAT_SECS = 1.0


class Watched:
    """One process of many instances, and the server that it alone talks to."""

    def __init__(self, face: str, url: str, count: int) -> None:
        self.face = face
        self.raw = connect(url)
        self.program = Program("many", face, url, count, BEAT_SECS)
        self.together: set[int] = set()

    def calls(self) -> int:
        return self.raw.info("commandstats")["cmdstat_evalsha"]["calls"]

    def deadlines(self) -> int:
        """How many different ones there are: 1 when the last beat moved all in one call."""
        return len(set(Store(self.raw).scores("deadlines").values()))

    def memory_mb(self) -> float:
        return psutil.Process(self.program.pid).memory_info().rss / 2**20

    def cpu_secs(self) -> float:
        spent = psutil.Process(self.program.pid).cpu_times()
        return spent.user + spent.system

    def sender_secs(self) -> float:
        (thread,) = self.program.ask("sender")
        path = Path(f"/proc/{self.program.pid}/task/{thread}/schedstat")
        return int(path.read_text().split()[0]) / 1e9

    def marks(self) -> dict[str, float]:
        return {
            "calls": self.calls(),
            "MB": self.memory_mb(),
            "cpu": self.cpu_secs(),
            "sender": self.sender_secs(),
        }


@pytest.mark.timeout(900)
def test_many_instances_of_a_process_cost_next_to_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """200 instances, a beat a second, ten minutes; both faces."""
    with EmbeddedServer() as one, EmbeddedServer() as other:
        watched = [Watched("async", one.url, MANY), Watched("sync", other.url, MANY)]
        idle = [Watched("async", one.url, 0), Watched("sync", other.url, 0)]
        with programs([item.program for item in (*watched, *idle)]):
            time.sleep(SETTLE_SECS)
            began = time.monotonic()
            first = [item.marks() for item in watched]
            idle_first = [item.cpu_secs() for item in idle]
            while time.monotonic() < began + SOAK_SECS - SETTLE_SECS:
                for item in watched:
                    item.together.add(item.deadlines())
                time.sleep(BEAT_SECS)
            last = [item.marks() for item in watched]
            idle_last = [item.cpu_secs() for item in idle]
            secs = time.monotonic() - began
        for item in (*watched, *idle):
            item.raw.close()
    for n, item in enumerate(watched):
        grew = {name: last[n][name] - first[n][name] for name in first[n]}
        base = (idle_last[n] - idle_first[n]) / secs
        process, sender = grew["cpu"] / secs - base, grew["sender"] / secs
        with capsys.disabled():
            print(  # noqa: T201  the figures
                f"\n  {item.face}: {grew['calls']:.0f} calls in {secs:.0f} s for {MANY} instances, "
                f"{item.together} different deadlines after each; CPU {100 * sender:.2f} % of a "
                f"core for the sender, {100 * process:.2f} % for its process (idle: "
                f"{100 * base:.2f} %); memory {first[n]['MB']:.1f} MB, then {last[n]['MB']:.1f} MB"
            )
        # Each beat is due 0.9 to 1 intervals after the one before, and moves all in one call.
        assert item.together == {1}
        assert secs / BEAT_SECS - 2 <= grew["calls"] <= secs / (0.9 * BEAT_SECS) + 2
        assert process < 0.02
        assert last[n]["MB"] <= 1.02 * first[n]["MB"] + 1


# --- kill -9 ------------------------------------------------------------------------------------

BATCHES = 5
VICTIMS = part(100 // BATCHES)
"""Processes killed in each batch."""

EACH = 3
TIMEOUT_SECS = 3.0


def announcer(
    server: EmbeddedServer, model: str, first: int, count: int, *more: object
) -> Program:
    return Program("announcer", server.url, model, first, count, *more)


@pytest.mark.timeout(300)
def test_detection_times_of_killed_workers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Worker processes killed at moments of their own, beside 300 living instances."""
    rng = random.Random(20261124)
    late: list[float] = []
    with (
        EmbeddedServer() as server,
        SyncModelRegistry.from_url(
            server.url, heartbeat_timeout_secs=TIMEOUT_SECS
        ) as reader,
        programs([announcer(server, MODEL, 1 + 100 * n, 100) for n in range(3)]),
        programs([Program("picker", server.url, "nobody@llm", TIMEOUT_SECS)]),
    ):
        raw = connect(server.url)
        for batch in range(BATCHES):
            victims = {
                f"victim-{batch}-{n}@llm": announcer(
                    server, f"victim-{batch}-{n}@llm", 1, EACH
                )
                for n in range(VICTIMS)
            }
            with programs(list(victims.values())):
                late += kill_and_watch(reader, victims, rng)
        living = len(reader.get_all_instances(MODEL, healthy_only=True))
        events = Store(raw).events(Kind.UNHEALTHY)
        raw.close()
    p99 = statistics.quantiles(late, n=100)[98]
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  {BATCHES * VICTIMS} workers killed, {len(late)} instances: unhealthy to readers after "
            f"timeout + {1000 * statistics.median(late):.1f} ms (median), {1000 * p99:.1f} ms (p99), "
            f"{1000 * max(late):.1f} ms at most"
        )
    assert living == 300
    assert len(late) == BATCHES * VICTIMS * EACH
    assert {event.instance.model_name for event in events if event.instance}.isdisjoint(
        {MODEL}
    )
    assert min(late) >= 0
    assert p99 <= 0.05


def kill_and_watch(
    reader: SyncModelRegistry, victims: dict[str, Program], rng: random.Random
) -> list[float]:
    """Kill each at a random moment; how late after its deadline a read said so."""
    timers = [threading.Timer(rng.uniform(0, 2.0), p.kill) for p in victims.values()]
    for timer in timers:
        timer.start()
    start = time.monotonic()
    late: dict[tuple[str, int], float] = {}
    while len(late) < len(victims) * EACH:
        assert time.monotonic() < start + 20, "still healthy to readers"
        for model in victims:
            if (model, EACH) in late:
                continue
            found = reader.get_all_instances(model)
            seen = time.time()
            for item in found:
                if not item.healthy and (model, item.port) not in late:
                    assert item.last_heartbeat is not None
                    overdue = seen - item.last_heartbeat.timestamp() - TIMEOUT_SECS
                    late[model, item.port] = overdue
    for timer in timers:
        timer.join()
    return list(late.values())


# --- SIGTERM ------------------------------------------------------------------------------------

ROUNDS = part(30)
PAIR = 2


@pytest.mark.timeout(300)
def test_on_sigterm_no_replica_picks_it_any_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three replicas select all the time; the last pick of a worker that got SIGTERM."""
    took: list[float] = []
    picks = 0
    with (
        EmbeddedServer() as server,
        programs([announcer(server, MODEL, 1, PAIR)]),
        programs(
            [Program("picker", server.url, MODEL, 3) for _ in range(3)]
        ) as pickers,
    ):
        raw = connect(server.url)
        store = Store(raw)
        for n in range(ROUNDS):
            ports = [100 + PAIR * n + i for i in range(PAIR)]
            with programs([announcer(server, MODEL, ports[0], PAIR)]) as (worker,):
                wait_for(lambda p=ports: all_picked(pickers, p), "all replicas pick it")
                signalled = time.monotonic()
                worker.signal(signal.SIGTERM)
                assert worker.hear() == PAIR, "its work was finished"
                assert worker.process.wait(10) == 0
                for answer in [picker.ask("what?") for picker in pickers]:
                    last = [answer["last"].get(str(port), 0) for port in ports]
                    took.append(max(last) - signalled)
                    picks += answer["picks"]
            for port in ports:
                kinds = store.kinds(instance(port))
                assert kinds == ["registered", "ready", "draining", "deregistered"]
        raw.close()
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  SIGTERM, {ROUNDS} times, {picks} picks of 3 replicas: the last one of it "
            f"{1000 * max(took):.1f} ms after the signal at most, {1000 * statistics.median(took):.1f} ms "
            "(median)"
        )
    assert len(took) == 3 * ROUNDS
    assert max(took) < 0.1


def all_picked(pickers: Any, ports: list[int]) -> bool:
    answers = [picker.ask("what?") for picker in pickers]
    return all(str(port) in answer["last"] for answer in answers for port in ports)


# --- a long load --------------------------------------------------------------------------------

QUICK_SECS = 1.0
LOAD_SECS = 10 * QUICK_SECS
BUDGET_SECS = 2.0


@pytest.mark.timeout(120)
def test_a_load_of_ten_timeouts_is_listed_and_never_selected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--timeout", QUICK_SECS, "--load", LOAD_SECS)
    with (
        EmbeddedServer() as server,
        SyncModelRegistry.from_url(
            server.url, heartbeat_timeout_secs=QUICK_SECS
        ) as reader,
        programs(
            [
                Program("picker", server.url, model, QUICK_SECS)
                for model in (MODEL, "late@llm")
            ]
        ) as (picker, late_picker),
        programs(
            [
                announcer(server, MODEL, 1, 1, *options),
                announcer(server, "late@llm", 2, 1, *options, "--budget", BUDGET_SECS),
            ],
            word="loading",
        ) as (worker, late_worker),
        ThreadPoolExecutor(1) as pool,
    ):
        raw = connect(server.url)
        hearing = pool.submit(worker.hear)
        seen: list[tuple[float, Any]] = []
        while not hearing.done():
            found = reader.get_all_instances(MODEL)
            seen.append((time.monotonic(), found))
            time.sleep(0.01)
        called, answered = hearing.result()
        late_called, _ = late_worker.hear()
        wait_for(
            lambda: reader.select_one_health_instance(MODEL),
            "it is selected",
            within_secs=1,
        )
        picked, late_picked = picker.ask("what?"), late_picker.ask("what?")
        failed = Store(raw).events(Kind.FAILED)
        flips = Store(raw).events(Kind.UNHEALTHY)
        raw.close()
    loading = [found for at, found in seen if at < called]
    states = {(i.state, i.readiness) for found in loading for i in found}
    first = picked["first"]["1"]
    budget = [(event.instance, event.cause) for event in failed]
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  loading for {LOAD_SECS:g} s with a timeout of {QUICK_SECS:g} s: listed in each of {len(loading)} reads, "
            f"in none of {picked['picks']} picks before ready(); first picked {1000 * (first - called):.1f} ms "
            f"after ready() was called, {1000 * (first - answered):.1f} ms after it returned; "
            f"{len(budget)} failed event"
        )
    assert all(len(found) == 1 for found in loading)
    assert len(loading) > 100
    assert states == {(Health.HEALTHY, Readiness.STARTING)}
    assert flips == []
    assert first > called
    assert late_picked["first"].get("2", late_called + 1) > late_called
    # Each selection that began after ready() had returned found it.
    assert picked["empty"] < answered
    assert [event.instance and event.instance.port for event in failed] == [2]
