"""Fleets whose registry was away, or whose connections were all cut: all return, at once and evenly."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from redis_registry import Kind, SyncModelRegistry
from redis_registry.embedded import EmbeddedServer
from tests.helpers import Store, connect
from tests.load.conftest import Tell
from tests.load.fleet import MODEL
from tests.load.programs import Program, part, programs
from tests.nodes import Node, nodes

PROCESSES = 8
WORKERS = part(5000 // PROCESSES) * PROCESSES
HERD = part(10_000 // PROCESSES) * PROCESSES
TIMEOUT_SECS = 15.0
INTERVAL_SECS = TIMEOUT_SECS / 3
HERD_TIMEOUT_SECS = 30.0
"""Half of what is usual. A worker's beat on a new connection takes 1 ms of a core, its own part and
Redis's, of which two cores have 2,000 in a second: just what 10,000 workers need that beat every
5 s. Then each attempt is too late, and makes a connection in vain, for as long as it goes on."""

HERD_INTERVAL_SECS = HERD_TIMEOUT_SECS / 3
BIN_SECS = 0.1


@dataclass
class Gauge:
    """Calls and connections that a server has counted, every 100 ms."""

    raw: Any
    calls: list[int] = field(default_factory=list[int])
    connects: list[int] = field(default_factory=list[int])

    def read(self) -> None:
        commands = self.raw.info("commandstats")
        calls = sum(
            commands.get(f"cmdstat_{name}", {"calls": 0})["calls"]
            for name in ("eval", "evalsha")
        )
        self.calls.append(calls)
        self.connects.append(self.raw.info("stats")["total_connections_received"])

    def clients(self) -> int:
        return self.raw.info("clients")["connected_clients"]


def steps(counted: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(counted)]


@contextmanager
def gauging(gauge: Gauge) -> Generator[None]:
    over = threading.Event()

    def run() -> None:
        due = time.monotonic()
        while not over.wait(max(due - time.monotonic(), 0)):
            gauge.read()
            due = max(due + BIN_SECS, time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass
class Return:
    """How the workers came back, from what they noted of each attempt.

    Attributes:
        interval_secs: Between two beats of a worker.
        came: When each worker had its first answer, in seconds after the return.
        waiting: Attempts that were under way at the return, and were answered.
        arrivals: Attempts begun in each 100 ms of the interval after it.
        failed: Attempts begun after it that failed.
        took: How long each attempt took that was answered after it.
    """

    interval_secs: float
    came: dict[int, float] = field(default_factory=dict[int, float])
    waiting: int = 0
    arrivals: Counter[int] = field(default_factory=Counter[int])
    failed: int = 0
    took: list[float] = field(default_factory=list[float])

    @classmethod
    def of(
        cls, attempts: list[Any], returned: float, interval_secs: float = INTERVAL_SECS
    ) -> Return:
        found = cls(interval_secs)
        for port, began, ended, answered in attempts:
            if ended < returned:
                continue
            if answered:
                found.took.append(ended - began)
                came = ended - returned
                found.came[port] = min(came, found.came.get(port, came))
            if began < returned:
                found.waiting += answered
            else:
                found.failed += not answered
                if began < returned + interval_secs:
                    found.arrivals[int((began - returned) / BIN_SECS)] += 1
        return found

    @property
    def peak_to_mean(self) -> float:
        bins = self.interval_secs / BIN_SECS
        return max(self.arrivals.values()) / (self.arrivals.total() / bins)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["paused", "restarted empty"])
def test_a_fleet_returns_evenly(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--timeout", str(TIMEOUT_SECS), "--interval", str(INTERVAL_SECS))
    each = WORKERS // PROCESSES
    with EmbeddedServer(options={"maxclients": "15000"}) as server:
        checkers = [
            Node(server.url, MODEL, 1, 0, *options, "--checker") for _ in range(2)
        ]
        fleets = [
            Program("fleet", server.url, 1 + n * each, each, TIMEOUT_SECS)
            for n in range(PROCESSES)
        ]
        with nodes(checkers), programs(fleets):
            before = Gauge(connect(server.url))
            with gauging(before):
                time.sleep(INTERVAL_SECS)
            clients = before.clients()
            flips = flipped(before.raw)
            gauge = before if how == "paused" else Gauge(None)
            if how == "paused":
                server.signal(signal.SIGSTOP)
            else:
                before.raw.close()
                server.kill()
            time.sleep(3 * TIMEOUT_SECS)
            if how == "paused":
                returned = time.monotonic()
                server.signal(signal.SIGCONT)
            else:
                server.start()
                returned = time.monotonic()
                gauge.raw = connect(server.url)
            first = max(len(gauge.calls) - 1, 0)
            with gauging(gauge):
                time.sleep(INTERVAL_SECS)
            flips_late, listed = watch(server.url, gauge.raw, WORKERS)
            found = Return.of(
                [row for fleet in fleets for row in fleet.ask("report")], returned
            )
            gauge.raw.close()
    calls, connects = steps(gauge.calls[first:]), steps(gauge.connects[first:])
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  {how}, {WORKERS} workers, {clients} connections: all back after "
            f"{max(found.came.values()):.2f} s of an interval of {INTERVAL_SECS:g} s; "
            f"{found.waiting} were waiting for their answer; then "
            f"{found.arrivals.total()} arrivals in the interval, peak/mean "
            f"{found.peak_to_mean:.2f} per 100 ms, {found.failed} failed; the server counted at most "
            f"{max(calls)} calls and {max(connects)} connects in 100 ms ({sum(connects)} in all); "
            f"{flips_late} flips"
        )
    assert flips == flips_late == 0
    assert listed == len(found.came) == WORKERS
    assert max(found.came.values()) <= INTERVAL_SECS
    assert found.peak_to_mean <= 2


@pytest.mark.timeout(600)
def test_ten_thousand_whose_connections_are_cut_return_evenly(tell: Tell) -> None:
    options = (
        "--timeout",
        str(HERD_TIMEOUT_SECS),
        "--interval",
        str(HERD_INTERVAL_SECS),
    )
    each = HERD // PROCESSES
    with EmbeddedServer(options={"maxclients": "25000"}) as server:
        raw = connect(server.url)
        checkers = [
            Node(server.url, MODEL, 1, 0, *options, "--checker") for _ in range(2)
        ]
        fleets = [
            Program("fleet", server.url, 1 + n * each, each, HERD_TIMEOUT_SECS)
            for n in range(PROCESSES)
        ]
        with nodes(checkers), programs(fleets):
            time.sleep(HERD_INTERVAL_SECS)  # one of theirs
            cut = time.monotonic()
            killed = raw.client_kill_filter(_type="normal", skipme=True)
            time.sleep(2 * HERD_INTERVAL_SECS)  # two of theirs
            flips, listed = watch(server.url, raw, HERD, HERD_TIMEOUT_SECS)
            rows = [row for fleet in fleets for row in fleet.ask("report")]
            found, calm = (
                Return.of(rows, since, HERD_INTERVAL_SECS)
                for since in (cut, cut - HERD_INTERVAL_SECS)
            )
            rejected = raw.info("stats")["rejected_connections"]
            raw.close()
    p99 = statistics.quantiles(found.took, n=100)[98]
    tell(
        f"  {killed} connections of {HERD} workers cut at once: {len(found.came)} back, the last after "
        f"{max(found.came.values()):.2f} s; of {len(found.took)} heartbeats since, p99 {1000 * p99:.0f} ms of an "
        f"interval of {HERD_INTERVAL_SECS:g} s; {found.arrivals.total()} arrivals in the first interval, peak/mean "
        f"{found.peak_to_mean:.2f} per 100 ms ({calm.peak_to_mean:.2f} in the one before the cut); "
        f"{found.failed} failed, {rejected} rejected, {flips} flips"
    )
    assert killed >= HERD
    assert flips == rejected == 0
    assert listed == len(found.came) == HERD
    assert p99 < HERD_INTERVAL_SECS
    assert found.peak_to_mean <= 2


def flipped(raw: Any) -> int:
    return len(Store(raw).events(Kind.UNHEALTHY))


def watch(
    url: str, raw: Any, count: int, timeout_secs: float = TIMEOUT_SECS
) -> tuple[int, int]:
    """All are healthy to readers, until long after the recovery; flips seen, and the number."""
    with SyncModelRegistry.from_url(
        url, heartbeat_timeout_secs=timeout_secs, operation_timeout_secs=30
    ) as reader:
        until = time.monotonic() + 2 * timeout_secs
        while True:
            listed = len(reader.get_all_instances(MODEL, healthy_only=True))
            if time.monotonic() > until or listed != count:
                return flipped(raw), listed
            time.sleep(0.5)
