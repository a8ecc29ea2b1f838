"""Clients of a Cluster's nodes: who uses them, and which of them are to be closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from redis_registry.topology import Host

__all__ = ["Node", "Nodes", "Place"]

Place = tuple[Host, str | bytes]
"""A node's address, and what its connections are set apart for."""


class Node:
    """One client, and how many calls are under way on it.

    Attributes:
        client: The driver's.
        place: Whose it is.
        users: Calls under way.
        left: The map of slots no longer names the node.
    """

    def __init__(self, client: Any, place: Place) -> None:
        self.client = client
        self.place = place
        self.users = 0
        self.left = False


class Nodes:
    """Clients by place; of those whose node left each goes with its last call.

    Safe in any number of threads. What it returns to be closed nobody uses, or gets any more.

    Args:
        connect: Makes a client of a node; it connects on its first command.
    """

    def __init__(self, connect: Callable[[Host], Any]) -> None:
        self._connect = connect
        self._nodes: dict[Place, Node] = {}
        self._lock = threading.Lock()

    def take(self, place: Place) -> Node:
        """Begin a call; :meth:`give_back` ends it."""
        with self._lock:
            node = self._nodes.get(place)
            if node is None:
                node = self._nodes[place] = Node(self._connect(place[0]), place)
            node.users += 1
            node.left = False  # somebody was sent there: it is new, or back
            return node

    def give_back(self, node: Node) -> list[Any]:
        """End a call; the clients to close now."""
        with self._lock:
            node.users -= 1
            return self._done_with([node])

    def keep(self, named: Callable[[Host], bool]) -> list[Any]:
        """Let go of the nodes that the map does not name; the clients to close now."""
        with self._lock:
            nodes = list(self._nodes.values())
            for node in nodes:
                node.left = not named(node.place[0])
            return self._done_with(nodes)

    def empty(self) -> list[Any]:
        """Let go of all; the clients to close, used or not."""
        with self._lock:
            nodes = list(self._nodes.values())
            self._nodes.clear()
            return [node.client for node in nodes]

    def _done_with(self, nodes: Iterable[Node]) -> list[Any]:
        done = [node for node in nodes if node.left and not node.users]
        for node in done:
            self._nodes.pop(node.place, None)
        return [node.client for node in done]
