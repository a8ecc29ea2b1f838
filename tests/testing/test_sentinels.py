"""A sentinel set fails over for real, and quickly enough for tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redis_registry import EmbeddedServerError
from redis_registry.testing import SentinelSet, await_that


def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(binary: str) -> None:
    with SentinelSet(binary=binary) as sentinels:
        old = sentinels.master()
        assert old.call("SET", "key", "before") == "OK"
        await_that(lambda: sentinels.replicas()[0].call("GET", "key"), "replicated")

        assert sentinels.kill_master() is old
        new = sentinels.await_new_master(old, within_secs=6)

        assert new is not old
        assert sentinels.master() is new
        assert new.call("GET", "key") == "before"
        assert new.call("SET", "key", "after") == "OK"
        old.start()
        await_that(lambda: old.call("GET", "key") == "after", "the old one follows")
        assert sentinels.replicas() == [old]


def test_a_paused_primary_is_replaced_and_yields_when_it_wakes(binary: str) -> None:
    with SentinelSet(binary=binary, replicas=2, password="p w") as sentinels:
        old = sentinels.stop_master()
        new = sentinels.await_new_master(old, within_secs=6)

        old.resume()
        await_that(
            lambda: old.info("replication")["role"] == "slave", "the old one yields"
        )
        assert sentinels.url.startswith("redis+sentinel://:p%20w@127.0.0.1:")
        assert sentinels.url.endswith("/mymaster/0")
        assert sentinels.master() is new
        assert len(sentinels.replicas()) == 2


def test_a_failover_by_order_loses_nobody(binary: str) -> None:
    with SentinelSet(binary=binary) as sentinels:
        old = sentinels.master()
        new = sentinels.failover(within_secs=6)
        assert new is not old
        assert all(server.alive for server in sentinels.servers)


def test_an_order_that_a_sentinel_gives_up_is_repeated(binary: str) -> None:
    """It does so where the replica is silent for the failover's time, on a busy machine."""
    with (
        SentinelSet(binary=binary, failover_secs=1) as sentinels,
        ThreadPoolExecutor(1) as beside,
    ):
        [replica] = sentinels.replicas()

        def under_way() -> bool:
            table = sentinels.sentinels[0].table("MASTER", sentinels.name)
            return "failover_in_progress" in table["flags"]

        replica.pause()
        moved = beside.submit(sentinels.failover)
        await_that(under_way, "the order is obeyed")
        await_that(lambda: not under_way(), "the order is given up")
        replica.resume()
        assert moved.result() is replica


def test_it_can_be_entered_again_but_not_twice(
    binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a directory with spaces"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))
    sentinels = SentinelSet(binary=binary)
    with sentinels:
        pass
    with sentinels:
        assert len(sentinels.sentinels) == 3
        with pytest.raises(EmbeddedServerError, match="entered already"):
            sentinels.__enter__()
        assert sentinels.master().alive
    assert not list(home.iterdir())
