"""Hosts reach each other until their link is broken; nothing of them is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from redis_registry import EmbeddedServerError, NotAvailableHere
from redis_registry.testing import (
    Cluster,
    Host,
    Network,
    SentinelSet,
    Standalone,
    await_that,
)
from redis_registry.testing import netns as module
from redis_registry.testing.clusters import SLOTS

PING = "import socket, sys; socket.create_connection((sys.argv[1], sys.argv[2]), timeout=0.3)"


def _reaches(host: Host, server: Standalone) -> bool:
    words = (sys.executable, "-c", PING, server.host, str(server.port))
    done = subprocess.run(host.command(*words), capture_output=True, check=False)
    return done.returncode == 0


def test_a_broken_link_loses_everything_and_can_be_mended(network: Network) -> None:
    first, second, third = network.hosts
    with Standalone(on=first) as server:
        assert _reaches(second, server)
        network.part(first, second)
        assert not _reaches(second, server)
        assert _reaches(third, server)
        assert server.call("PING") == "PONG"  # the test always reaches it
        network.cut(first)
        assert not _reaches(third, server)
        network.heal()
        assert _reaches(second, server)
        assert _reaches(third, server)


def test_a_primary_that_is_cut_off_takes_writes_that_are_lost(
    network: Network,
) -> None:
    with SentinelSet(hosts=network.hosts) as sentinels:
        old = sentinels.master()
        other = sentinels.replicas()[0]
        assert {old.host, other.host} == {host.address for host in network.hosts[:2]}
        network.cut(network.hosts[0])
        await_that(
            lambda: other.info("replication")["role"] == "master", "a second primary"
        )
        assert old.call("SET", "key", "lost") == "OK"
        assert other.call("SET", "key", "kept") == "OK"
        network.heal()
        await_that(lambda: old.info("replication")["role"] == "slave", "one yields")
        await_that(lambda: old.call("GET", "key") == "kept", "the write is lost")


def test_a_cluster_spreads_over_hosts_and_survives_the_loss_of_one(
    network: Network,
) -> None:
    with Cluster(hosts=network.hosts) as cluster:
        lost = [n for n in cluster.nodes if n.host == network.hosts[0].address]
        assert [n in cluster.primaries() for n in lost] == [True, False]
        slot = cluster.slot_of("key")
        others = [n for n in cluster.nodes if n not in lost]
        network.cut(network.hosts[0])
        await_that(
            lambda: sum(len(node.slots()) for node in others) == SLOTS,
            "the others hold all slots",
        )
        network.heal()
        cluster.await_well()
        assert cluster.owner(slot) in cluster.primaries()
        assert lost[0] in cluster.replicas()


def test_nothing_is_left_of_it(network: Network) -> None:
    code = (
        "import os, signal\n"
        "from redis_registry.testing import *\n"
        "with Network(2) as network, Standalone(on=network.hosts[0]) as server:\n"
        "    print(network.hosts[0].address, server.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    address, pid = done.stdout.split()

    def gone() -> bool:
        found = subprocess.run(
            ["ip", "addr"], capture_output=True, text=True, check=True
        )
        here = f"{address.rpartition('.')[0]}.254/" in found.stdout
        return not here and not os.path.exists(f"/proc/{pid}")  # noqa: PTH110

    await_that(gone, "interface and server are gone")


def test_what_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotAvailableHere, match="needs root"):
        Network().__enter__()

    def nothing(_name: str) -> None:
        """Finds nothing."""

    monkeypatch.setattr(shutil, "which", nothing)
    with pytest.raises(NotAvailableHere, match="apt-get install iproute2"):
        Network().__enter__()


def test_a_wrong_order_is_named(network: Network) -> None:
    with pytest.raises(EmbeddedServerError, match="ip nonsense"):
        module._ip(network.hosts[0], "nonsense")
