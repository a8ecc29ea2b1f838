"""What can befall a company: each a context manager that begins a fault and ends it again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis_registry.errors import EmbeddedServerError, NotAvailableHere
from redis_registry.testing import Standalone
from redis_registry.testing.link import Said
from tests.chaos.auditor import PREFIX
from tests.chaos.stage import Player, Stage, Topology

__all__ = ["FAULTS", "Fault", "lose_tail"]

Play = Callable[[Stage], AbstractContextManager[None]]
EVERYWHERE: tuple[Topology, ...] = ("standalone", "sentinel", "cluster")


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: As it is noted.
        play: Begins and ends it.
        topologies: Where it can be made.
        secs: How long it lasts, at least and at most.
        of_redis: Of these one at a time: else nobody could say what the servers still have.
    """

    name: str
    play: Play
    topologies: tuple[Topology, ...]
    secs: tuple[float, float]
    of_redis: bool


FAULTS: list[Fault] = []


def _fault(
    *topologies: Topology,
    secs: tuple[float, float] = (0.0, 0.0),
    of_redis: bool = False,
) -> Callable[[Callable[[Stage], Generator[None]]], Play]:
    def add(play: Callable[[Stage], Generator[None]]) -> Play:
        made = contextmanager(play)
        name = play.__name__.replace("_", "-")
        FAULTS.append(Fault(name, made, topologies or EVERYWHERE, secs, of_redis))
        return made

    return add


# --- of processes -----------------------------------------------------------------------------------


@contextmanager
def _killed(stage: Stage, role: str) -> Generator[None]:
    if not stage.those(role):
        yield
        return
    player = stage.one_of(role)
    player.kill()
    yield
    player.again()


@contextmanager
def _paused(stage: Stage, role: str) -> Generator[None]:
    if not stage.those(role):
        yield
        return
    player = stage.one_of(role)
    player.pause()
    yield
    if not player.gone:
        player.resume()


@_fault(secs=(0.1, 5.0))
def worker_killed(stage: Stage) -> Generator[None]:
    """Killed, and started again at the same address as another life."""
    with _killed(stage, "worker"):
        yield


@_fault()
def worker_leaves(stage: Stage) -> Generator[None]:
    """It says goodbye, and the next life begins at once."""
    if stage.those("worker"):
        player = stage.one_of("worker")
        player.leave()
        player.again()
    yield


@_fault(secs=(0.2, 4.0))
def worker_paused(stage: Stage) -> Generator[None]:
    """As a machine that is frozen, or a long pause of the collector."""
    with _paused(stage, "worker"):
        yield


@_fault(secs=(0.1, 3.0))
def controller_killed(stage: Stage) -> Generator[None]:
    """Perhaps the one that sweeps."""
    with _killed(stage, "controller"):
        yield


@_fault(secs=(0.2, 3.0))
def controller_paused(stage: Stage) -> Generator[None]:
    """It goes on as if nothing had happened, with a term that has ended."""
    with _paused(stage, "controller"):
        yield


@_fault(secs=(0.2, 3.0))
def router_paused(stage: Stage) -> Generator[None]:
    """Its view has missed what has happened since."""
    with _paused(stage, "router"):
        yield


@_fault(secs=(1.0, 3.0))
def loop_blocked(stage: Stage) -> Generator[None]:
    """A worker's or controller's event loop does nothing for two timeouts."""
    role = stage.chance.choice(("worker", "controller"))
    if stage.those(role):
        stage.one_of(role).order("block", secs=2 * stage.timeout)
    yield


@_fault(secs=(1.5, 4.0))
def zombie(stage: Stage) -> Generator[None]:
    """Whoever flips next is stopped just before, and goes on when somebody else has the lease."""
    armed = stage.those("controller")
    for player in armed:
        player.order("arm", script="flip", moment="before", act="stop")
    yield
    for player in armed:
        if not player.gone:
            player.order("disarm")
            player.resume()


# --- of the network ---------------------------------------------------------------------------------


@contextmanager
def _disconnected(stage: Stage, how: str) -> Generator[None]:
    whom = [p for p in stage.players.values() if p.runs and p.proxy]
    player = stage.chance.choice(whom) if whom else None
    if player is not None:
        player.disconnect(how)
    yield
    if player is not None:
        player.reconnect()


@_fault("standalone", secs=(0.2, 4.0))
def cut_off(stage: Stage) -> Generator[None]:
    """One process can't reach Redis, and is told so."""
    with _disconnected(stage, "refusing"):
        yield


@_fault("standalone", secs=(0.2, 4.0))
def network_frozen(stage: Stage) -> Generator[None]:
    """Nothing passes, and nobody is told; what was sent arrives later."""
    with _disconnected(stage, "frozen"):
        yield


@_fault("standalone", secs=(0.2, 4.0))
def replies_swallowed(stage: Stage) -> Generator[None]:
    """Redis does what it is told, and nobody hears of it."""
    with _disconnected(stage, "swallowing"):
        yield


@_fault("standalone")
def all_connections_cut(stage: Stage) -> Generator[None]:
    """At once, as by a switch that is restarted."""
    for player in stage.players.values():
        if player.proxy is not None:
            player.proxy.cut()
    yield


@_fault("standalone")
def replies_lost(stage: Stage) -> Generator[None]:
    """Done, and never answered: whoever asked asks again."""
    for player in stage.players.values():
        if player.proxy is not None:
            player.proxy.lose_replies(stage.chance.randint(1, 3))
    yield


@_fault("standalone", secs=(1.0, 4.0))
def network_slow(stage: Stage) -> Generator[None]:
    """Each way takes up to a tenth of a second longer."""
    slowed = [p for p in stage.players.values() if p.runs]
    for player in slowed:
        if player.proxy is not None:
            player.proxy.delay_secs = stage.chance.uniform(0.0, 0.1)
    yield
    for player in slowed:
        if player.proxy is not None:
            player.proxy.delay_secs = 0.0


# --- of Redis ---------------------------------------------------------------------------------------


def _primaries(stage: Stage) -> Sequence[Standalone]:
    found: list[Standalone] = []
    for server in stage.servers:
        if server.alive:
            try:
                if server.info("replication")["role"] == "master":
                    found.append(server)
            except (OSError, EmbeddedServerError):
                continue
    return found


def _on_primaries(stage: Stage, *words: str) -> None:
    for server in _primaries(stage):
        try:
            server.call(*words)
        except (OSError, EmbeddedServerError):
            continue


@_fault()
def scripts_flushed(stage: Stage) -> Generator[None]:
    """No server knows any script."""
    _on_primaries(stage, "SCRIPT", "FLUSH")
    yield


@_fault()
def clients_killed(stage: Stage) -> Generator[None]:
    """By the servers."""
    _on_primaries(stage, "CLIENT", "KILL", "TYPE", "normal")
    yield


@_fault()
def events_trimmed(stage: Stage) -> Generator[None]:
    """Whoever was away can't read what was missed."""
    for server in _primaries(stage):
        for partition in range(stage.partitions):
            try:
                server.call("XTRIM", PREFIX % partition + "events", "MAXLEN", 1)
            except (OSError, Said):
                continue
    yield


@_fault("standalone", "sentinel", of_redis=True)
def flushed(stage: Stage) -> Generator[None]:
    """Everything is gone."""
    _on_primaries(stage, "FLUSHALL")
    yield


@_fault("standalone", secs=(0.1, 4.0), of_redis=True)
def redis_killed(stage: Stage) -> Generator[None]:
    """kill -9, and a restart that has everything that was acknowledged."""
    stage.one.kill()
    yield
    stage.one.start()


@_fault("standalone", secs=(0.1, 2.0), of_redis=True)
def redis_lost_its_tail(stage: Stage) -> Generator[None]:
    """kill -9, and a restart without what was acknowledged last."""
    stage.one.kill()
    lose_tail(stage.one, stage.chance.randint(500, 6000))
    yield
    stage.one.start()


@_fault("standalone", secs=(0.2, 5.0), of_redis=True)
def redis_paused(stage: Stage) -> Generator[None]:
    """As a machine that is frozen: connections stay, nobody answers."""
    stage.one.pause()
    yield
    stage.one.resume()


@_fault("standalone", secs=(1.0, 4.0), of_redis=True)
def memory_full(stage: Stage) -> Generator[None]:
    """Redis takes nothing new."""
    stage.one.call("CONFIG", "SET", "maxmemory", "1mb")
    yield
    stage.one.call("CONFIG", "SET", "maxmemory", "0")


def lose_tail(server: Standalone, count: int) -> None:
    """Cut the end off the append-only file of a server that does not run."""
    assert server._home is not None
    found = sorted(Path(server._home.name).glob("appendonlydir/*.incr.aof"))
    size = found[-1].stat().st_size
    with found[-1].open("rb+") as file:
        file.truncate(max(0, size - count))


@_fault("sentinel", secs=(0.5, 3.0), of_redis=True)
def master_killed(stage: Stage) -> Generator[None]:
    """kill -9; Sentinel promotes the replica."""
    sentinels = stage.sentinels
    assert sentinels is not None
    old = sentinels.kill_master()
    yield
    sentinels.await_new_master(old)
    old.start()
    _await_step(stage)


@_fault("sentinel", secs=(0.5, 5.0), of_redis=True)
def master_paused(stage: Stage) -> Generator[None]:
    """Frozen for a while: short, and it goes on; longer, and it finds itself replaced."""
    sentinels = stage.sentinels
    assert sentinels is not None
    old = sentinels.stop_master()
    yield
    old.resume()
    _await_step(stage)


@_fault("sentinel", of_redis=True)
def failover_ordered(stage: Stage) -> Generator[None]:
    """By an operator."""
    sentinels = stage.sentinels
    assert sentinels is not None
    sentinels.failover()
    _await_step(stage)
    yield


@_fault("sentinel", secs=(0.5, 2.0), of_redis=True)
def failover_loses_writes(stage: Stage) -> Generator[None]:
    """The replica had stopped following a moment ago, and is promoted nevertheless."""
    sentinels = stage.sentinels
    assert sentinels is not None
    old = sentinels.master()
    for replica in sentinels.replicas():
        replica.call("REPLICAOF", "127.0.0.1", 1)  # nobody is there
    stage.calm(stage.chance.uniform(0.2, 0.6))
    old.kill()
    yield
    sentinels.await_new_master(old)
    old.start()
    _await_step(stage)


def _await_step(stage: Stage) -> None:
    """Wait until one server is the primary and the others follow it: the next fault needs them."""
    sentinels = stage.sentinels
    assert sentinels is not None

    def in_step() -> bool:
        try:
            found = list(_primaries(stage))
            others = [server for server in sentinels.servers if server not in found]
            return len(found) == 1 and all(server.in_step() for server in others)
        except (OSError, EmbeddedServerError):
            return False

    stage.until(in_step, "all replicas follow one primary", within_secs=40.0)


def _slot(stage: Stage) -> str:
    return PREFIX % stage.chance.randrange(stage.partitions) + "meta"


@_fault("cluster", secs=(1.0, 4.0), of_redis=True)
def primary_killed(stage: Stage) -> Generator[None]:
    """kill -9; its replica takes over."""
    cluster = stage.cluster
    assert cluster is not None
    dead = cluster.kill_primary(_slot(stage))
    yield
    cluster.await_failover(dead)
    dead.start()
    cluster.await_well()


@_fault("cluster", secs=(0.5, 4.0), of_redis=True)
def primary_paused(stage: Stage) -> Generator[None]:
    """Frozen for a while: short, and it goes on; longer, and it finds itself replaced."""
    cluster = stage.cluster
    assert cluster is not None
    old = cluster.stop_primary(_slot(stage))
    yield
    old.resume()
    cluster.await_well()


@_fault("cluster", of_redis=True)
def slot_moved(stage: Stage) -> Generator[None]:
    """Key by key, to another primary."""
    cluster = stage.cluster
    assert cluster is not None
    key = _slot(stage)
    owner = cluster.owner(key)
    others = [node for node in cluster.primaries() if node is not owner]
    cluster.migrate(key, stage.chance.choice(others))
    yield


@_fault("cluster", of_redis=True)
def slot_moved_at_once(stage: Stage) -> Generator[None]:
    """As Valkey 9 does it; where that can't be, key by key."""
    cluster = stage.cluster
    assert cluster is not None
    key = _slot(stage)
    owner = cluster.owner(key)
    others = [node for node in cluster.primaries() if node is not owner]
    to = stage.chance.choice(others)
    try:
        cluster.migrate_atomically(key, to)
    except NotAvailableHere:
        cluster.migrate(key, to)
    yield


def players_off(stage: Stage) -> list[Player]:
    """Those that are gone or stopped."""
    return [player for player in stage.players.values() if not player.runs]
