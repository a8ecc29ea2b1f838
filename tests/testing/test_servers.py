"""One server and a replica do what they were told, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import cast

import pytest

from redis_registry import (
    AccessDenied,
    EmbeddedServerError,
    NotAvailableHere,
    SyncModelRegistry,
)
from redis_registry.testing import Clocked, Replica, Standalone, await_that
from tests.helpers import instance


def test_options_users_and_passwords_are_the_servers_own(binary: str) -> None:
    users = {"default": "off", "app": "on >pa%ss ~rr:* +@all"}
    options = {"maxmemory": "9mb"}
    with Standalone(binary=binary, users=users, options=options) as server:
        assert server.call("CONFIG", "GET", "maxmemory") == ["maxmemory", "9437184"]
        with SyncModelRegistry.from_url(server.url_of("app", "pa%ss")) as registry:
            registry.register_instance(instance(1))
        with (
            pytest.raises(AccessDenied),
            SyncModelRegistry.from_url(server.url) as registry,
        ):
            registry.register_instance(instance(1))
    with Standalone(binary=binary, password="a b@c") as server:
        with SyncModelRegistry.from_url(server.url) as registry:
            registry.register_instance(instance(1))
        with pytest.raises(EmbeddedServerError, match="unknown command"):
            server.call("NONSENSE")


def test_a_replica_follows_its_primary_and_can_be_promoted(binary: str) -> None:
    with (
        Standalone(binary=binary, password="secret") as primary,
        Replica(primary, binary=binary) as replica,
    ):
        primary.call("SET", "key", "value")
        await_that(lambda: replica.call("GET", "key") == "value", "replicated")
        with pytest.raises(EmbeddedServerError, match="READONLY"):
            replica.call("SET", "key", "other")
        replica.promote()
        assert replica.call("SET", "key", "other") == "OK"
        replica.stop()
        replica.start()
        assert replica.info("replication")["role"] == "master", "it stays one"
        primary.call("SET", "key", "mine")
        replica.follow(primary)
        assert replica.call("GET", "key") == "mine"


def test_a_paused_server_keeps_connections_and_says_nothing(binary: str) -> None:
    with Standalone(binary=binary) as server:
        server.pause()
        assert not server.alive
        with pytest.raises(TimeoutError):
            server.call("PING")
        server.resume()
        assert server.alive
        assert server.call("PING") == "PONG"


PROGRAM = """
import os, signal, socket
from redis_registry.testing import *
with (
    Cluster(replicas=0) as cluster,
    SentinelSet() as sentinels,
    Standalone() as paused,
    Standalone() as busy,
):
    paused.pause()
    link = socket.create_connection(("127.0.0.1", busy.port))
    link.sendall(b'EVAL "while true do end" 0\\r\\n')
    servers = [*cluster.nodes, *sentinels.servers, *sentinels.sentinels, paused, busy]
    print(*[server.pid for server in servers], flush=True)
    input()
    END
"""


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_outlives_the_block_or_its_owner(end: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("END", end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 3 + 2 + 3 + 2
    assert all(map(_runs, pids))
    owner.communicate("\n")
    await_that(lambda: not any(map(_runs, pids)), "all are gone", within_secs=5)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_nothing_is_left_of_its_directory(binary: str) -> None:
    with Standalone(binary=binary, options={"appendonly": "yes"}) as server:
        home = Path(cast("list[str]", server.call("CONFIG", "GET", "dir"))[1])
        assert home.is_dir()
    assert not home.exists()


def test_a_port_that_another_server_has_is_not_taken_for_its_own(binary: str) -> None:
    with Standalone(binary=binary) as other:
        with pytest.raises(EmbeddedServerError, match="Address already in use"):
            Standalone(binary=binary, port=other.port).start()
        assert other.alive


def test_a_port_of_a_server_with_a_password_is_named(binary: str) -> None:
    with (
        Standalone(binary=binary, password="secret") as other,
        pytest.raises(EmbeddedServerError, match=f"port {other.port}: NOAUTH"),
    ):
        Standalone(binary=binary, port=other.port).start()


def test_entered_twice_it_says_so_and_the_first_goes_on(binary: str) -> None:
    with Standalone(binary=binary) as server:
        first = server.pid
        with pytest.raises(EmbeddedServerError, match="runs already"):
            server.start()
        assert server.alive
        assert server.pid == first


@pytest.mark.parametrize("kind", [Standalone, Clocked])
def test_a_binary_that_can_not_be_run_is_named(kind: type[Standalone]) -> None:
    with pytest.raises(NotAvailableHere, match="/nowhere/redis-server can't be run"):
        kind(binary="/nowhere/redis-server").start()


class _Web(BaseRequestHandler):
    """Answers as a web server does to what is no HTTP."""

    def handle(self) -> None:
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_port_of_another_kind_of_server_is_not_taken_for_its_own(binary: str) -> None:
    with TCPServer(("127.0.0.1", 0), _Web) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(EmbeddedServerError, match="Address already in use"):
            Standalone(binary=binary, port=other.server_address[1]).start()
        other.shutdown()


def test_an_option_may_hold_spaces_and_none_lets_it_go_its_own_way(binary: str) -> None:
    options = {"dbfilename": "'a b.rdb'", "daemonize": "yes"}
    with Standalone(binary=binary, options=options) as server:
        assert server.call("CONFIG", "GET", "dbfilename") == ["dbfilename", "a b.rdb"]
        assert server.call("CONFIG", "GET", "daemonize") == ["daemonize", "no"]
        assert server.alive
