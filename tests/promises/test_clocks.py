"""L1: Redis's clock is the only one; wrong clocks of nodes change nothing at all."""

from __future__ import annotations

import time

from redis_registry import Kind, SyncModelRegistry
from tests.conftest import Server
from tests.nodes import Node, nodes

SKEWS_SECS = [0, 3600, -3600, 3 * 86_400]


def test_nodes_with_wrong_clocks_flip_nobody_who_beats(server: Server) -> None:
    options = ("--timeout", "2", "--interval", "0.5", "--checker")
    with nodes(
        [
            Node(server.url, "glm@llm", 1 + 50 * number, 50, *options, skew_secs=skew)
            for number, skew in enumerate(SKEWS_SECS)
        ]
    ):
        start = time.monotonic()
        with SyncModelRegistry.from_url(server.url, heartbeat_timeout_secs=2) as reader:
            while time.monotonic() < start + 5:
                found = reader.get_all_instances("glm@llm")
                assert [item for item in found if not item.healthy] == []
                assert len(found) == 200
                time.sleep(0.05)
    assert server.store.events(Kind.UNHEALTHY) == []
    actors = {event.actor for event in server.store.events(Kind.REGISTERED)}
    assert len(actors) == len(SKEWS_SECS)
