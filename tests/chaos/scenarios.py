"""Rows of the fault matrix as plots: what befalls the company, and what must be seen beyond the judge's checks.

The judge looks for every broken promise in every run; ``expects`` names what this very plot must show, so that
a plot whose fault never happened is no success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from redis_registry.testing import Clocked, Cluster
from tests.chaos import faults
from tests.chaos.auditor import PREFIX
from tests.chaos.expectations import (
    Expectation,
    a_new_epoch,
    beats_back,
    each_flipped_once,
    fenced,
    leases_go_on,
    no_caller_error,
    nobody_flipped,
    nobody_flipped_without_checker,
    nothing_lost,
    refused_for_memory,
    somebody_flipped,
    something_lost,
    told,
    watches_resynced,
)
from tests.chaos.run import Plot
from tests.chaos.stage import Company, Player, Stage, Topology

__all__ = ["SCENARIOS", "Scenario"]

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@dataclass(frozen=True)
class Scenario:
    """A row of the matrix, played by several processes and judged by their history.

    Attributes:
        name: What ``--scenario`` calls it.
        row: Its number in the matrix.
        what: The fault, and what must hold.
        plot: What happens.
        topology: On what kind of Redis.
        expects: What must be seen in the history.
        stage: More for the stage.
    """

    name: str
    row: int
    priority: Literal["P0", "P1"]
    what: str
    plot: Plot
    topology: Topology
    expects: tuple[Expectation, ...]
    stage: Mapping[str, Any] = field(default_factory=dict[str, Any])


SCENARIOS: list[Scenario] = []


def _scenario(
    row: int,
    priority: Literal["P0", "P1"],
    what: str,
    *expects: Expectation,
    on: Topology = "standalone",
    **stage: Any,
) -> Callable[[Plot], Plot]:
    def add(plot: Plot) -> Plot:
        name = plot.__name__.strip("_").replace("_", "-")
        SCENARIOS.append(Scenario(name, row, priority, what, plot, on, expects, stage))
        return plot

    return add


# --- of the one server ----------------------------------------------------------------------------------


@_scenario(
    1, "P0", "kill -9 with AOF always: nothing acknowledged is lost, nobody flipped",
    a_new_epoch, nothing_lost, nobody_flipped, watches_resynced,
)  # fmt: skip
def aof_always(stage: Stage) -> None:
    for _ in range(3):
        stage.calm(stage.chance.uniform(0.3, 1.0))
        stage.one.kill()
        stage.calm(stage.chance.uniform(0.0, 1.0))
        stage.one.start()
        stage.calm(2 * stage.timeout)


@_scenario(
    1, "P0", "kill -9 that loses the end of the AOF: a new epoch, everybody begins anew, nobody flipped",
    a_new_epoch, nobody_flipped, watches_resynced,
)  # fmt: skip
def aof_loses_its_tail(stage: Stage) -> None:
    for _ in range(2):
        stage.calm(stage.chance.uniform(0.3, 1.0))
        worker = stage.one_of("worker")
        worker.leave()
        worker.again()
        stage.calm(1.0)
        stage.one.kill()
        faults.lose_tail(stage.one, stage.chance.randint(1500, 4000))
        stage.one.start()
        stage.calm(2 * stage.timeout)


@_scenario(
    2, "P0", "kill -9 without persistence: workers are back within two heartbeats, no ghosts",
    a_new_epoch, something_lost, nobody_flipped, watches_resynced, options={"appendonly": "no"},
)  # fmt: skip
def without_persistence(stage: Stage) -> None:
    worker = stage.one_of("worker")
    worker.leave()  # a ghost, if anybody remembered it
    stage.calm(1.0)
    stage.one.kill()
    stage.calm(stage.chance.uniform(0.0, 1.0))
    stage.one.start()
    stage.calm(2 * stage.timeout)


@_scenario(
    2, "P0", "FLUSHALL: workers are back within two heartbeats, no ghosts, no storm of flips",
    a_new_epoch, something_lost, nobody_flipped, watches_resynced,
)  # fmt: skip
def flushall(stage: Stage) -> None:
    for _ in range(2):
        stage.one.call("FLUSHALL")
        stage.calm(2 * stage.timeout)


@_scenario(
    2, "P0", "FLUSHALL, and views notice it before the workers do: they go on picking the living",
    a_new_epoch, something_lost, nobody_flipped, watches_resynced,
    # Workers beat every eight seconds, views ask every second.
    settings={"heartbeat_timeout_secs": 24.0},
)  # fmt: skip
def flushed_between_beats(stage: Stage) -> None:
    for _ in range(2):
        stage.calm(stage.chance.uniform(1.0, 2.0))
        stage.one.call("FLUSHALL")
        stage.calm(stage.timeout / 3)


@_scenario(
    3, "P0", "Redis stands still for 2 s: calls end, nobody is flipped", nobody_flipped
)
def paused_2_s(stage: Stage) -> None:
    stage.one.pause()
    stage.calm(2.0)
    stage.one.resume()
    stage.calm(2 * stage.timeout)


@_scenario(
    3, "P0", "Redis stands still for 10 s: calls end, nobody is flipped", nobody_flipped
)
def paused_10_s(stage: Stage) -> None:
    stage.one.pause()
    stage.calm(10.0)
    stage.one.resume()
    stage.calm(2 * stage.timeout)


@_scenario(
    3, "P0", "Redis is down for two timeouts: nobody is flipped",
    nobody_flipped, beats_back(2.0),
)  # fmt: skip
def down_for_two_timeouts(stage: Stage) -> None:
    stage.one.kill()
    stage.calm(2 * stage.timeout)
    stage.one.start()
    stage.calm(2 * stage.timeout)


@_scenario(
    5, "P0", "a failover that loses acknowledged writes: all begin anew, no token twice, workers register again",
    a_new_epoch, something_lost, nobody_flipped, watches_resynced, spare=True,
)  # fmt: skip
def lossy_failover(stage: Stage) -> None:
    assert stage.link is not None
    stage.link.frozen = True
    worker = stage.one_of("worker")
    worker.leave()
    worker.again()  # acknowledged, and lost with the primary
    stage.calm(2.0)
    stage.fail_over()
    stage.calm(3 * stage.timeout)


@_scenario(
    11, "P0", "the sweeping controller is stopped before its flip, and goes on later: it is refused",
    fenced, each_flipped_once,
    # So that the refusal comes before its caller gives up, on a busy machine too.
    settings={"heartbeat_timeout_secs": 3.0},
)  # fmt: skip
def zombie(stage: Stage) -> None:
    for player in stage.those("controller"):
        player.order("arm", script="flip", moment="before", act="stop")
    stage.calm(0.3)
    stage.one_of("worker").kill()

    def stopped() -> bool:
        return any(
            note["what"] == "failpoint"
            for player in stage.those("controller")
            for note in stage.notes(player)
        )

    stage.until(stopped, "somebody was about to flip")
    for player in stage.those("controller"):
        player.order("disarm")
    stage.calm(2 * stage.timeout)
    for player in stage.those("controller"):
        player.resume()
    stage.calm(1.0)


@_scenario(
    12, "P0", "five checkers, leases hardly longer than a sweep: one event for each death",
    each_flipped_once, company=Company(controllers=5), settings={"lease_ttl_secs": 0.12},
)  # fmt: skip
def five_checkers(stage: Stage) -> None:
    stage.calm(1.0)
    for worker in stage.those("worker"):
        worker.kill()
        stage.calm(2 * stage.timeout)


@_scenario(
    13, "P0", "no checker lives; then one comes: nobody is flipped before, the dead soon after",
    somebody_flipped, nobody_flipped_without_checker,
)  # fmt: skip
def nobody_sweeps(stage: Stage) -> None:
    dead = stage.those("controller")
    stage.calm(2 * stage.timeout)
    for player in dead:
        player.kill()
    stage.one_of("worker").kill()
    stage.calm(4 * stage.timeout)
    stage.book.write("no checker until now")
    dead[0].again()
    stage.calm(4 * stage.timeout)


@_scenario(
    14, "P0", "clocks of all processes wrong by an hour: no effect",
    each_flipped_once, company=Company(workers=3, skews_secs=(3600, -3600, 0)),
)  # fmt: skip
def wrong_clocks(stage: Stage) -> None:
    stage.calm(2 * stage.timeout)
    stage.those("worker")[0].kill()
    stage.calm(2 * stage.timeout)


def _leader(stage: Stage) -> Player:
    """The controller that swept last."""

    def swept_at(player: Player) -> float:
        return max(
            (
                n["at"]
                for n in stage.notes(player)
                if n.get("script") == "sweep" and n.get("token")
            ),
            default=0.0,
        )

    return max(stage.those("controller"), key=swept_at)


def _clock_moved(stage: Stage, secs: float) -> None:
    """Whose lease would last an hour is dead; another one must take over."""
    server = stage.one
    assert isinstance(server, Clocked)
    stage.calm(1.0)
    leader = _leader(stage)
    leader.kill()
    server.set_clock(secs)
    stage.calm(3 * stage.timeout)
    leader.again()
    stage.those("worker")[0].kill()
    stage.calm(4 * stage.timeout)


@_scenario(
    15, "P1", "Redis's clock jumps an hour ahead: nobody living is flipped, no lease lasts an hour",
    leases_go_on, each_flipped_once, clocked=True,
)  # fmt: skip
def redis_clock_ahead(stage: Stage) -> None:
    _clock_moved(stage, 3600)


@_scenario(
    15, "P1", "Redis's clock jumps an hour back: nobody living is flipped, no lease lasts an hour",
    leases_go_on, each_flipped_once, clocked=True,
)  # fmt: skip
def redis_clock_back(stage: Stage) -> None:
    _clock_moved(stage, -3600)


@_scenario(
    15, "P1", "Redis's clock is smeared, by a tenth: nobody living is flipped",
    leases_go_on, nobody_flipped, clocked=True,
)  # fmt: skip
def redis_clock_smeared(stage: Stage) -> None:
    server = stage.one
    assert isinstance(server, Clocked)
    for step in range(40):
        server.set_clock(0.01 * step)
        stage.calm(0.1)


@_scenario(
    16, "P0", "a worker stands still for longer than its timeout: flipped once, and back once",
    each_flipped_once,
)  # fmt: skip
def worker_paused(stage: Stage) -> None:
    worker = stage.one_of("worker")
    worker.pause()
    stage.calm(2 * stage.timeout)
    worker.resume()
    stage.calm(2 * stage.timeout)


@_scenario(
    20, "P0", "events are trimmed while a watch is away: a named resync, never a silent gap",
    told("trimmed"),
)  # fmt: skip
def trimmed(stage: Stage) -> None:
    router = stage.one_of("router")
    router.pause()
    worker = stage.one_of("worker")
    worker.leave()
    worker.again()
    stage.calm(1.5)
    faults.trim(stage)
    router.resume()
    stage.calm(stage.timeout)


@_scenario(
    24, "P0", "memory full: heartbeats and sweeps go on, registration gets a clear error, nobody flipped",
    refused_for_memory, nobody_flipped,
)  # fmt: skip
def memory_full(stage: Stage) -> None:
    stage.calm(0.5)
    stage.one.call("CONFIG", "SET", "maxmemory", "1mb")
    worker = stage.one_of("worker")
    worker.leave()
    worker.again()
    stage.calm(3 * stage.timeout)
    stage.one.call("CONFIG", "SET", "maxmemory", "0")
    stage.calm(stage.timeout)


@_scenario(
    36, "P0", "event loops are blocked for two timeouts: announced workers live on, a checker is replaced",
)  # fmt: skip
def loops_blocked(stage: Stage) -> None:
    stage.leader().order("block", secs=2 * stage.timeout)
    stage.one_of("worker").order("block", secs=2 * stage.timeout)
    stage.calm(4 * stage.timeout)


# --- of Sentinel and Cluster ----------------------------------------------------------------------------


def _played(fault: faults.Play, secs: float) -> Plot:
    def plot(stage: Stage) -> None:
        stage.calm(1.0)
        with fault(stage):
            stage.calm(secs)
        stage.calm(2 * stage.timeout)

    return plot


def _of_fault(
    name: str, row: int, priority: Literal["P0", "P1"], what: str, fault: faults.Play, on: Topology,
    *expects: Expectation, secs: float = 1.0,
) -> None:  # fmt: skip
    plot = _played(fault, secs)
    SCENARIOS.append(Scenario(name, row, priority, what, plot, on, expects))


CALLERS = (nobody_flipped, no_caller_error)

_of_fault("sentinel-master-killed", 4, "P0", "kill -9 of the master: heartbeats back, no caller's error, nobody flipped",
          faults.master_killed, "sentinel", *CALLERS, a_new_epoch, beats_back(2.0))  # fmt: skip
_of_fault("sentinel-master-paused", 4, "P0", "the master stands still: heartbeats back, no caller's error, nobody flipped",
          faults.master_paused, "sentinel", *CALLERS, a_new_epoch, beats_back(2.0), secs=6.0)  # fmt: skip
_of_fault("sentinel-failover-ordered", 4, "P0", "an operator moves the master: no caller's error, nobody flipped",
          faults.failover_ordered, "sentinel", *CALLERS, a_new_epoch)  # fmt: skip
_of_fault("sentinel-failover-loses-writes", 5, "P0", "the promoted replica had stopped following: all begin anew",
          faults.failover_loses_writes, "sentinel", nobody_flipped, a_new_epoch, watches_resynced)  # fmt: skip
_of_fault("cluster-primary-killed", 7, "P0", "kill -9 of a primary: no caller's error, nobody flipped",
          faults.primary_killed, "cluster", *CALLERS, a_new_epoch, beats_back(2.0))  # fmt: skip
_of_fault("cluster-primary-paused", 7, "P0", "a primary stands still: no caller's error, nobody flipped",
          faults.primary_paused, "cluster", *CALLERS, a_new_epoch, beats_back(2.0), secs=6.0)  # fmt: skip
_of_fault("slot-moved-at-once", 9, "P1", "a slot moves at one moment (Valkey 9): every call succeeds",
          faults.slot_moved_at_once, "cluster", *CALLERS)  # fmt: skip


def _moved_slowly(stage: Stage, cluster: Cluster, key: str, *, new: bool) -> None:
    others = [node for node in cluster.primaries() if node is not cluster.owner(key)]
    to = cluster.add_node() if new else stage.chance.choice(others)
    cluster.begin_migration(key, to)
    while cluster.move_keys(key, to, 1):
        stage.calm(0.15)  # so that calls meet it half moved
    cluster.end_migration(key, to)


@_scenario(
    8,
    "P0",
    "a slot moves key by key to a known node: every call succeeds",
    *CALLERS,
    on="cluster",
)
def slot_moved(stage: Stage) -> None:
    assert stage.cluster is not None
    for partition in range(stage.partitions):
        _moved_slowly(stage, stage.cluster, PREFIX % partition + "meta", new=False)
    stage.calm(stage.timeout)


@_scenario(
    8,
    "P0",
    "a slot moves key by key to a new node: every call succeeds",
    *CALLERS,
    on="cluster",
)
def slot_moved_to_a_new_node(stage: Stage) -> None:
    assert stage.cluster is not None
    _moved_slowly(stage, stage.cluster, PREFIX % 0 + "meta", new=True)
    stage.calm(stage.timeout)
