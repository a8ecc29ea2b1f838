"""Where Redis is, as a URL says it."""

from __future__ import annotations

import threading
import traceback
from typing import Any, cast

import pytest
import redis
from redis import ConnectionPool as SyncPool
from redis import Redis as SyncRedis
from redis.asyncio import ConnectionPool as Pool
from redis.asyncio import Redis, Sentinel

from redis_registry import ConfigurationError, RedisModelRegistry, SyncModelRegistry
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import sync_twin
from redis_registry.store.driver.cluster import SyncCluster
from redis_registry.store.driver.slots import SlotMap, key_of
from redis_registry.topology import _OF_TLS, _OPTIONS, Topology
from tests.helpers import wait_for


@pytest.mark.parametrize(
    ("url", "driver", "where"),
    [
        ("redis://h", "redis://h", "h:6379"),
        ("redis://", "redis://", "localhost:6379"),
        ("valkey://h:1/2", "redis://h:1/2", "h:1"),
        ("valkeys://u:p@h:1", "rediss://u:p@h:1", "h:1"),
        ("rediss://[::1]:7/0?ssl_cert_reqs=none", None, "::1:7"),
        ("unix:///run/redis.sock?db=1", None, "/run/redis.sock"),
        (" redis://h:1/0 \n", "redis://h:1/0", "h:1"),
        ("Unix:///run/redis.sock", "unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_one_server(url: str, driver: str | None, where: str) -> None:
    found = Topology.of(url)
    assert (found.kind, found.url, found.where) == ("server", driver or url, where)


def test_sentinels_and_the_master_they_know() -> None:
    found = Topology.of(
        "rediss+sentinel://me:s%40cret@a:1,b,[::1]:3/my%20master/2"
        "?sentinel_password=x%26y&ssl_ca_certs=/ca.pem"
    )
    assert (found.kind, found.service) == ("sentinel", "my master")
    assert found.hosts == (("a", 1), ("b", 26379), ("::1", 3))
    assert found.url == "rediss://me:s%40cret@a:1/2?ssl_ca_certs=%2Fca.pem"
    assert found.credentials == (("password", "x&y"),)
    assert "cret" not in found.where
    assert Topology.of("valkey+sentinel://a/m").url == "redis://a:26379/"


def test_nodes_of_a_cluster() -> None:
    found = Topology.of("redis+cluster://:pw@a,b:7001")
    assert (found.kind, found.hosts) == ("cluster", (("a", 6379), ("b", 7001)))
    assert found.url == "redis://:pw@a:6379/"
    assert Topology.of("redis+cluster://a/0").where == "the Cluster a:6379"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "can't connect to such URLs"),
        ("http://x", "can't connect to 'http' URLs"),
        ("redis+ha://x", "redis.sentinel"),
        ("unix+cluster:///x", "can't connect"),
        ("redis://a,b", "names one server, and here are 2 hosts"),
        ("redis+sentinel://a:26379", "which master?"),
        ("redis+cluster://", "at least one host"),
        ("redis+cluster://a/3", "only database 0"),
        ("redis+sentinel://a/m/x", "no number of a database"),
        ("redis://a:26379/mymaster", "no number of a database"),
        ("redis:a:6379", "not a Redis URL"),
        ("redis://h:port", "not a Redis URL"),
        ("redis+cluster://h:99999", "not a Redis URL"),
        ("redis+cluster://:1", "no host"),
    ],
)
def test_what_is_wrong_is_said(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Topology.of(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:secr/et@h:1",
        "redis://me:12/secret@h:1",
        "redis://me:12?secret@h:1",
        "redis://me:12#secret@h:1",
        "redis+sentinel://me:secr/et@h:1/m",
        "redis+sentinel://me:12/secret@h:1/m",
        "redis+cluster://me:12/secret@h:1",
        "redis://me:12?db=1&secr=et@h:1",
        "redis://me:secr[et@h:1",
        "redis://me:secr\u2100et@h:1",
    ],
)
def test_what_was_meant_as_a_password_is_in_no_message(url: str) -> None:
    with pytest.raises(ConfigurationError, match="password and names write") as caught:
        Topology.of(url)
    assert "secr" not in "".join(traceback.format_exception(caught.value))
    assert Topology.of("redis://h?client_name=a@b").where == "h:6379"


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis://h?decode_responses=true", "decode_responses"),
        ("redis://h?protocol=3", "protocol"),
        ("redis://h?retry_on_timeout=true", "retry_on_timeout"),
        ("redis://h?connection_class=x", "connection_class"),
        ("redis://h?host=elsewhere", "host"),
        ("redis://h?db=1&foo=1", "foo"),
        ("redis://h?foo", "foo"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs"),
        ("redis://h?sentinel_password=x", "sentinel_password"),
        ("unix:///run/redis.sock?foo=1", "foo"),
        ("redis+cluster://h?protocol=3", "protocol"),
        ("rediss+sentinel://h/m?socket_timeout=9", "socket_timeout"),
    ],
)
@pytest.mark.parametrize("face", [RedisModelRegistry, SyncModelRegistry])
def test_options_that_are_not_the_url_s_to_give_are_refused_when_it_is_built(
    face: type[RedisModelRegistry | SyncModelRegistry], url: str, option: str
) -> None:
    with pytest.raises(
        ConfigurationError, match=f"'{option}' is no option.*client_name"
    ):
        face.from_url(url)


def test_options_that_the_url_may_give_are_known_to_both_drivers() -> None:
    values = {
        "db": "2",
        "health_check_interval": "3",
        "socket_connect_timeout": "0.3",
        "socket_keepalive": "no",
        "ssl_cert_reqs": "optional",
        "ssl_exclude_verify_flags": "VERIFY_X509_STRICT",
        "ssl_include_verify_flags": "VERIFY_X509_STRICT",
        "ssl_min_version": "771",
    }
    given = "&".join(
        f"{name}={values.get(name, 'x')}" for name in (*_OPTIONS, *_OF_TLS)
    )
    found = Topology.of(f"rediss+sentinel://h/m?{given}&sentinel_username=x")
    for kind in (SyncPool, Pool):
        connection = cast("Any", kind).from_url(found.url).make_connection()
        assert (connection.db, connection.socket_connect_timeout) == (2, 0.3)


def test_a_password_is_in_no_repr() -> None:
    found = Topology.of("redis+sentinel://me:secret@a/m?sentinel_password=secret")
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://me:secret@h"},
        {"url": "redis+sentinel://me:secret@h:26379"},
        {"url": "redis+cluster://me:secret@h/5"},
        {"url": "redis://me:secret@a,b"},
        {"url": "redis://me:sec/ret@h"},
        {"url": "redis://me:secret@h", "gap_secs": 1, "lease_ttl_secs": 2},
    ],
)
def test_a_password_is_in_no_message_about_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RegistrySettings.of(**wrong)
    said = "".join(traceback.format_exception(caught.value))
    assert "secret" not in said
    assert "sec/ret" not in said


def test_the_first_key_of_each_command() -> None:
    assert key_of(["EVALSHA", "sha", 2, "a", "b", "x"]) == "a"
    assert key_of(["HMGET", "a", "f"]) == "a"
    assert key_of(["XREAD", "BLOCK", 5, "COUNT", 1, "STREAMS", "a", "0-0"]) == "a"
    assert key_of(["XRANGE", "a", "-", "+"]) == "a"


def test_a_map_of_slots_follows_what_nodes_say() -> None:
    found = SlotMap([("first", 1)])
    assert (found.stale, found.owner(0), found.to_ask()) == (True, None, [("first", 1)])
    node, replica, unnamed = [b"n", 2, b"id"], [b"r", 3, b"id"], [b"", 4, b"id"]
    found.take([[0, 99, node, replica], [100, 100, unnamed]], ("asked", 1))
    assert found.owner(99) == ("n", 2)
    assert found.owner(100) == ("asked", 4), "it does not know its own address"
    assert found.owner(101) is None
    nameless = [b"?", 5, b"id", [b"ip", b"10.0.0.5"]]
    other = SlotMap([("first", 1)])
    other.take([[0, 99, nameless], [100, 100, [b"?", 6, b"id", []]]], ("asked", 1))
    assert other.owner(0) == ("10.0.0.5", 5), "its host name is not set, its address is"
    assert other.owner(100) == ("asked", 6)
    assert set(found.to_ask()) == {("n", 2), ("r", 3), ("asked", 4), ("first", 1)}
    assert not found.stale
    found.moved(99, ("new", 9))
    assert (found.owner(99), found.stale) == (("new", 9), True)
    assert not found.take([], ("asked", 1))
    assert found.owner(99) == ("new", 9), "an empty answer is no news"


class Closable:
    """What a client of a node can do, whatever it answers."""

    def close(self) -> None: ...


def test_a_silent_node_takes_a_caller_s_time_once_and_is_asked_last() -> None:
    """Found by the suite on a Cluster: a heartbeat with 0.5 s to go waited for each in turn."""
    asked: list[str] = []

    class Node(Closable):
        def __init__(self, host: tuple[str, int]) -> None:
            self.name = host[0]

        def execute_command(self, *words: Any) -> Any:
            asked.append(self.name)
            if self.name != "well":
                raise redis.TimeoutError
            return [[0, 16383, [b"well", 3]]] if words[0] == "CLUSTER" else b"1"

    cluster = SyncCluster([("paused", 1), ("frozen", 2), ("well", 3)], Node)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError, match="tells its slots"):
            cluster.execute_command("HGET", "a", "b")
    assert cluster.execute_command("HGET", "a", "b") == b"1"
    assert asked == ["paused", "frozen", "well", "well"]


def test_a_node_that_was_silent_to_a_command_is_asked_last_for_the_map() -> None:
    """Found by chaos on a Cluster (seed 1008): it took a worker two timeouts to leave a frozen node."""
    asked: list[str] = []

    class Node(Closable):
        def __init__(self, host: tuple[str, int]) -> None:
            self.name = host[0]

        def execute_command(self, *words: Any) -> Any:
            asked.append(self.name)
            if self.name == "frozen" and words[0] != "CLUSTER":
                raise redis.TimeoutError
            return [[0, 16383, [b"frozen", 1], [b"well", 2]]]

    for _ in range(20):  # the others are asked in any order
        cluster = SyncCluster([("well", 2)], Node)
        with pytest.raises(redis.TimeoutError):
            cluster.execute_command("HGET", "a", "b")
        asked.clear()
        with pytest.raises(redis.TimeoutError):
            cluster.execute_command("HGET", "a", "b")
        assert asked[0] == "well"


def test_a_given_client_of_a_sentinels_master_is_not_taken_for_a_server_here() -> None:
    sentinel = Sentinel([("10.0.0.1", 26379)])
    client = cast("Any", sentinel).master_for("mymaster", password="pw")
    with pytest.raises(ConfigurationError, match=r"redis\+sentinel://"):
        sync_twin(client)
    assert isinstance(sync_twin(Redis(password="pw")), SyncRedis), "that one is here"


def test_where_all_were_silent_each_has_its_turn_and_the_first_ones_too() -> None:
    """A Cluster that comes back at new addresses is found by the names in the URL."""
    asked: list[str] = []
    there = ["old", "older"]

    class Node(Closable):
        def __init__(self, host: tuple[str, int]) -> None:
            self.name = host[0]

        def execute_command(self, *words: Any) -> Any:
            asked.append(self.name)
            if self.name not in there:
                raise redis.TimeoutError
            return (
                [[0, 16383, [b"old", 1], [b"older", 2]]]
                if words[0] == "CLUSTER"
                else b"1"
            )

    cluster = SyncCluster([("name", 3)], Node)
    there.append("name")
    assert cluster.execute_command("HGET", "a", "b") == b"1"
    there.clear()
    for _ in range(8):
        with pytest.raises(redis.RedisError):
            cluster.execute_command("HGET", "a", "b")
    asked.clear()
    for _ in range(3):
        with pytest.raises(redis.RedisError):
            cluster.execute_command("HGET", "a", "b")
    assert sorted(asked) == ["name", "old", "older"]


def test_threads_that_wait_for_the_map_fail_with_who_reads_it() -> None:
    """Each read it after the other: with all nodes silent, 8 threads took minutes, not 3 s."""
    many = 8
    begun: list[int] = []
    readings: list[int] = []

    class Counting(SyncCluster):
        def _take(self, step: Any, args: Any) -> Any:
            begun.append(1)
            return super()._take(step, args)

    class Node:
        def execute_command(self, *_: Any) -> Any:
            readings.append(1)
            wait_for(lambda: len(begun) == many, "all threads need the map")
            raise redis.TimeoutError

    def call() -> None:
        with pytest.raises(redis.ConnectionError, match="tells its slots"):
            cluster.execute_command("HGET", "a", "b")

    cluster = Counting([("frozen", 1)], lambda _: Node())
    threads = [threading.Thread(target=call) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(readings) < many / 2
