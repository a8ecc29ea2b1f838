"""Acceptance of reservations: 8 processes on one Redis pick evenly, fast, and lose none."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import pytest

from redis_registry import SyncModelRegistry
from redis_registry.embedded import EmbeddedServer
from tests.conftest import KINDS
from tests.helpers import Store, connect, instances
from tests.load.programs import Program, part, programs

MODEL = "glm@llm"
PROCESSES = 8
RESERVATIONS = 5_000
WORKERS = 10
MOST_MS = 3.0
ROUNDS = 3
"""The median of their p99s counts; all of them are printed."""


def quantile(sorted_us: list[int], share: float) -> float:
    """In milliseconds."""
    return sorted_us[round(share * (len(sorted_us) - 1))] / 1000


def race(
    url: str, processes: int, count: int, *how: object, even: bool = True
) -> tuple[list[int], float]:
    """Let so many processes reserve; the sorted µs of each entering, and the seconds in all."""
    made = [Program("reserver", url, MODEL, count, *how) for _ in range(processes)]
    picked, took_us = Counter[str](), list[int]()
    with programs(made) as running:
        start = time.monotonic()
        for program in running:
            assert program.process.stdin is not None
            program.process.stdin.write("go\n")
            program.process.stdin.flush()
        for program in running:
            told = program.hear()
            picked.update(told["picked"])
            took_us += told["took_us"]
        secs = time.monotonic() - start
    if even:
        assert sum(picked.values()) == processes * count
        ratio = max(picked.values()) / min(picked.values())
        assert len(picked) == WORKERS
        assert ratio <= 1.1, f"{ratio:.3f}: {picked}"
    return sorted(took_us), secs


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["valkey", "redis7"])
def test_eight_processes_agree_and_are_fast(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    count = part(RESERVATIONS, 200)
    with (
        EmbeddedServer(binary=KINDS[kind]) as server,
        SyncModelRegistry.from_url(server.url) as registry,
    ):
        registry.send_heartbeats(instances(WORKERS, heartbeat_timeout_secs=3600))
        url, runs = server.url, dict[str, tuple[list[int], float]]()
        runs["1 process"] = race(url, 1, count, 1, 0, 0)
        flat_out = [f"8 processes, round {number}" for number in range(ROUNDS)]
        for name in flat_out:
            runs[name] = race(url, PROCESSES, count, 1, 0, 0)
        runs["8 processes, at most 250/s each, held 10 ms"] = race(
            url, PROCESSES, part(1_000, 200), 8, 0.01, 250
        )
        runs["8 processes, PING instead"] = race(
            url, PROCESSES, count, 1, 0, 0, "ping", even=False
        )
        assert set(registry.in_flight(MODEL).values()) == {0}
        raw = connect(server.url)
        Store(raw).check()
        raw.close()
    with capsys.disabled():
        for what, (took, secs) in runs.items():
            print(  # noqa: T201  the figures are what it is for
                f"\n{kind}: {what}: {len(took)}, {len(took) / secs:.0f}/s: p50 "
                f"{quantile(took, 0.5):.2f} ms, p99 {quantile(took, 0.99):.2f} ms, "
                f"p99.9 {quantile(took, 0.999):.2f} ms"
            )
    p99s = [quantile(runs[name][0], 0.99) for name in flat_out]
    assert statistics.median(p99s) <= MOST_MS
