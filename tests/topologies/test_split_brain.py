"""A master that is cut off with its clients goes on: what that costs, and that it can be seen."""

from __future__ import annotations

import time
from typing import Any

import pytest

from redis_registry import SyncModelRegistry
from redis_registry.testing import Network, SentinelSet, Standalone, await_that
from tests.load.programs import Program, programs

CUT_SECS = 8.0
MAX_LAG_SECS = 2
# Redis counts the lag in whole seconds, and looks once a second: it may see a lag of 2 s up to
# 1 s late, and refuse from the look after that.
REFUSED_SECS = MAX_LAG_SECS + 2
CAREFUL = {
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": str(MAX_LAG_SECS),
}
CUT_OFF, OTHERS = 1, 50_001
WORKERS = {CUT_OFF, CUT_OFF + 1, OTHERS}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("options", [{}, CAREFUL], ids=["as it is", "min-replicas"])
def test_what_a_cut_off_master_took_is_lost_and_that_is_told(
    network: Network,
    options: dict[str, str],
    binary: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, _, there = network.hosts
    with SentinelSet(
        replicas=2, hosts=network.hosts, options=options, binary=binary
    ) as sentinels:
        url, old = sentinels.url, sentinels.master()
        sides = [
            Program("side", url, name, port, package="tests.topologies", on=host)
            for name, port, host in (("cut", CUT_OFF, here), ("kept", OTHERS, there))
        ]
        with programs(sides):
            cut = split(network, sentinels, sides[0], old)
            healed = time.monotonic()
            network.heal()
            await_that(
                lambda: old.info("replication")["role"] == "slave",
                "one of the masters yields",
                within_secs=60,
            )
            yielded = time.monotonic()
            lost_side, kept_side = settled(sides)
        kept = registered(url, "cut")
    took = [(port, at) for port, at in lost_side["acked"] if at > cut]
    lost = [at for port, at in took if port not in kept]
    refused = [row[2:] for row in lost_side["refused"] if cut < row[0] < healed]
    with capsys.disabled():
        print(  # noqa: T201  the figures
            f"\n  {options or 'as it is'}: {len(lost)} of {len(took)} acknowledged writes lost, the last "
            f"{max(lost, default=cut) - cut:.1f} s after the cut, which was {healed - cut:.1f} s long; "
            f"{len(refused)} refused; the old master yielded {yielded - healed:.1f} s after the heal"
        )
    assert lost, "there was no split"
    told_apart([*lost_side["events"], *kept_side["events"]])
    begun_anew(lost_side, kept_side)
    if options:
        assert max(lost) - cut < REFUSED_SECS
        assert {name for name, _ in refused} == {"RegistryUnavailable"}
        assert any("NOREPLICAS" in text for _, text in refused)
    else:
        assert max(lost) > healed - 1, "it took writes to the end"


def split(
    network: Network, sentinels: SentinelSet, side: Program, old: Standalone
) -> float:
    """Cut the master off with one side, which gets a second worker there; since when."""
    network.cut(network.hosts[0])
    cut = time.monotonic()
    side.ask("late")
    others = [server for server in sentinels.servers if server is not old]
    await_that(
        lambda: any(s.info("replication")["role"] == "master" for s in others),
        "a second master",
    )
    time.sleep(max(0.0, cut + CUT_SECS - time.monotonic()))
    return cut


def settled(sides: list[Program]) -> list[dict[str, Any]]:
    """Wait until both sides see all workers, and the same new epoch; their last reports."""
    for side in sides:
        side.ask("stop")
    reports: list[dict[str, Any]] = []

    def one_truth() -> bool:
        reports[:] = [side.ask("report") for side in sides]
        firsts, lasts = (
            {report["events"][at][1] for report in reports} for at in (0, -1)
        )
        seen = all(set(report["working"]) >= WORKERS for report in reports)
        anew = len(lasts) == 1 and lasts.isdisjoint(firsts)
        return seen and anew and not any(r["stale"] for r in reports)

    await_that(one_truth, "both sides see the same", within_secs=40)
    return reports


def registered(url: str, model: str) -> set[int]:
    """The ports of a model's instances, as the master that remained has them."""
    with SyncModelRegistry.from_url(url, operation_timeout_secs=15) as reader:
        return {item.port for item in reader.get_all_instances(model)}


def told_apart(events: list[list[Any]]) -> None:
    """No epoch and revision name two events, whichever side was told of them."""
    known: dict[tuple[int, str, int], list[str]] = {}
    for partition, epoch, revision, *what in events:
        if what[0] != "resync":
            place = (partition, epoch, revision)
            assert known.setdefault(place, what) == what, place


def begun_anew(lost_side: dict[str, Any], kept_side: dict[str, Any]) -> None:
    """The side that was cut off was told so, by its watch and by its view."""
    epoch = kept_side["events"][-1][1]
    assert lost_side["events"][0][1] != epoch
    anew = next(event for event in lost_side["events"] if event[1] == epoch)
    assert anew[3] == "resync"
    assert sum(lost_side["resyncs"].values()) > 1
