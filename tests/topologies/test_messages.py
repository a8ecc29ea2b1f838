"""Behind a URL of many servers, a call that fails names the one that it went to.

It may be one that only its own neighbours can reach: what they announce must be right for everybody.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from redis_registry import RedisModelRegistry, RegistryUnavailable, SyncModelRegistry
from redis_registry.testing import Cluster, SentinelSet, await_that
from tests.helpers import instance
from tests.topologies.traffic import OPTIONS

HASTY: dict[str, Any] = OPTIONS | {"operation_timeout_secs": 0.5}
KEY = "rr:{default/0}:meta"


async def refused(url: str, face: str) -> str:
    """What a call says that fails."""
    with SyncModelRegistry.from_url(url, **HASTY) as blocking:
        async with RedisModelRegistry.from_url(
            url, run_checker=False, **HASTY
        ) as registry:
            try:
                if face == "sync":
                    blocking.send_heartbeat(instance())
                else:
                    await registry.send_heartbeat(instance())
            except RegistryUnavailable as error:
                return str(error)
    return "nothing: it succeeded"


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_a_node_that_announces_what_nobody_reaches_is_named(
    binary: str, face: str, no_tasks_left: None
) -> None:
    with Cluster(binary=binary) as cluster, socket.create_server(("", 0)) as silent:
        port = silent.getsockname()[1]
        cluster.owner(KEY).call("CONFIG", "SET", "cluster-announce-port", port)
        await_that(
            lambda: all(
                str(port) in str(node.call("CLUSTER", "SLOTS"))
                for node in cluster.nodes
            ),
            "all nodes know the port",
        )
        assert f"(this call: 127.0.0.1:{port})" in await refused(cluster.url, face)


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_the_master_that_sentinels_name_is_named(
    binary: str, face: str, no_tasks_left: None
) -> None:
    with SentinelSet(binary=binary) as sentinels:
        master = sentinels.master()
        master.pause()
        assert f"(this call: 127.0.0.1:{master.port})" in await refused(
            sentinels.url, face
        )
