"""What the tests run on, ``pytest --topology`` says which: one server, a Sentinel's master, a Cluster.

Sentinels and nodes are so patient that none is replaced while tests run: what tests do to all
servers at once must mean the same on each topology. Failovers are tested in tests/topologies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from redis_registry.testing import Cluster, SentinelSet, Standalone
from tests.helpers import connect

PATIENCE_SECS = 60.0
"""Longer than any server is paused or away."""

PARTITIONS = 3
"""Of a registry on a Cluster: each on a primary of its own, the usual model not in the first."""


@dataclass
class Place:
    """Servers under one URL; a context manager.

    Attributes:
        url: How registries find them.
        servers: Those that take writes.
        sentinels: Who tells where these are.
        port: Of the first.
    """

    url: str
    servers: Sequence[Standalone]
    sentinels: Sequence[Standalone] = ()
    ready: Callable[[], None] = lambda: None
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def port(self) -> int:
        return self.servers[0].port

    def signal(self, number: int) -> None:
        """Send a signal to all that take writes."""
        for server in self.servers:
            server.signal(number)

    def save(self) -> None:
        """Have them write to disk what they hold."""
        for server in self.servers:
            server.call("SAVE")

    def kill(self) -> None:
        """End all that take writes as a power cut would."""
        for server in self.servers:
            server.kill()

    def start(self) -> None:
        """Start them again, each with what it has on disk."""
        for server in self.servers:
            server.start()
        self.ready()

    def asking(self) -> list[str]:
        """Connections to the Sentinels that are not from each other."""
        found: list[str] = []
        for sentinel in self.sentinels:
            raw: Any = connect(sentinel.url)
            found += [
                client["addr"]
                for client in raw.client_list()
                if not client["name"].startswith("sentinel-")
                and client["cmd"] != "client|list"
            ]
            raw.close()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()


def _standalone(binary: str, options: Mapping[str, str]) -> Place:
    stack = ExitStack()
    server = stack.enter_context(Standalone(binary=binary, options=options))
    return Place(server.url, [server], stack=stack)


def _sentinel(binary: str, options: Mapping[str, str]) -> Place:
    stack = ExitStack()
    made = SentinelSet(binary=binary, options=options, down_after_secs=PATIENCE_SECS)
    sentinels = stack.enter_context(made)
    return Place(sentinels.url, [sentinels.master()], sentinels.sentinels, stack=stack)


def _cluster(binary: str, options: Mapping[str, str]) -> Place:
    stack = ExitStack()
    made = Cluster(binary=binary, options=options, node_timeout_secs=PATIENCE_SECS)
    cluster = stack.enter_context(made)
    primaries = cluster.primaries()
    return Place(cluster.url, primaries, ready=cluster.await_well, stack=stack)


TOPOLOGIES: dict[str, Callable[[str, Mapping[str, str]], Place]] = {
    "standalone": _standalone,
    "sentinel": _sentinel,
    "cluster": _cluster,
}
