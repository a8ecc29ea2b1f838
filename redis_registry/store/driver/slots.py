"""Which node of a Cluster serves which slot, and which slot a command of ours is about. Pure."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from redis_registry.topology import Host

__all__ = ["SlotMap", "key_of"]

REFRESH_LEAST_SECS = 0.05
"""From one reading of the map to the next, while calls fail."""


def key_of(command: Sequence[Any]) -> str | bytes:
    """The first key of one of the commands that we send."""
    name = str(command[0]).upper()
    if name in {"EVAL", "EVALSHA"}:
        return command[3]
    if name == "XREAD":
        words = [str(word).upper() for word in command]
        return command[words.index("STREAMS") + 1]
    return command[1]


class SlotMap:
    """Which node serves which slot, as far as it is known. Pure.

    Args:
        hosts: Nodes to ask at first.

    Attributes:
        stale: It may be wrong, or is empty: read it anew before it is used.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.stale = True
        self._first = list(hosts)
        self._owners: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: set[Host] = set()
        self._silent: dict[Host, float] = {}  # and since when
        self._read_at = float("-inf")

    def owner(self, slot: int) -> Host | None:
        """The node of a slot."""
        return self._owners[slot]

    def names(self, host: Host) -> bool:
        """Whether it was told of a node when it was last read."""
        return host in self._nodes

    def moved(self, slot: int, host: Host) -> None:
        """A node said where a slot is now; others may have moved too."""
        self._owners[slot] = host
        self.stale = True

    def due(self) -> float:
        """How long to wait before it may be read anew, in seconds."""
        return max(self._read_at + REFRESH_LEAST_SECS - time.monotonic(), 0.0)

    def to_ask(self) -> list[Host]:
        """Whom to ask for it: the nodes last heard of, then the first ones; at last the silent.

        Of those who was silent longest ago comes first: where all are, each has its turn.
        """
        known = list(self._nodes)
        random.shuffle(known)
        known += [host for host in self._first if host not in self._nodes]
        return sorted(known, key=lambda host: self._silent.get(host, 0.0))

    def silent(self, host: Host) -> None:
        """A node gave no answer."""
        self._silent[host] = time.monotonic()

    def take(self, reply: Sequence[Any], asked: Host) -> bool:
        """What a node answered to CLUSTER SLOTS; whether it knew any."""
        self._read_at = time.monotonic()
        self._silent.pop(asked, None)
        nodes: set[Host] = set()
        owners: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, *servers in reply:
            hosts = [_host(server, asked) for server in servers]
            nodes.update(hosts)
            for slot in range(int(first), int(last) + 1):
                owners[slot] = hosts[0]
        if nodes:
            self._owners, self._nodes, self.stale = owners, nodes, False
        return bool(nodes)


def _host(server: Sequence[Any], asked: Host) -> Host:
    """Its address; a node that does not know its own is the one that was asked."""
    name, port, *more = server
    text = _text(name)
    if text == "?":  # it goes by a host name, and has none
        said = [_text(word) for words in more[1:] for word in words]
        text = dict(zip(said[::2], said[1::2], strict=False)).get("ip", "")
    return (text or asked[0]), int(port)


def _text(said: bytes | str | None) -> str:
    return said.decode() if isinstance(said, bytes) else (said or "")
