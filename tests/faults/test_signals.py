"""Signals at any moment, also while Redis is away, also twice: a clean end in time, and no lease left."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_registry import SyncModelRegistry
from redis_registry.testing import Standalone
from tests.agent.conftest import Agent
from tests.conftest import Server
from tests.helpers import wait_for
from tests.replica import Replica

pytestmark = pytest.mark.standalone("the one server is stopped, filled, or has users")

FAST = ("--heartbeat-timeout-secs", "1.5", "--heartbeat-interval-secs", "0.2")
GRACE_SECS = 10
"""Requests under way have 5 s; then what is held is given back, or not if Redis is away."""


def started(url: str, replicas: list[Replica], log: Path) -> Replica:
    replica = Replica("--url", url, *FAST, log=log)
    replicas.append(replica)
    wait_for(
        lambda: "controller starts" in log.read_text(), "it starts", within_secs=20
    )
    return replica


@pytest.mark.parametrize("seed", range(4))
def test_a_controller_ends_with_zero_whenever_it_is_told(
    server: Server, replicas: list[Replica], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    replica = started(server.url, replicas, tmp_path / "log")
    time.sleep(rng.uniform(0, 0.4))
    start = time.monotonic()
    assert replica.end(rng.choice([signal.SIGTERM, signal.SIGINT])) == 0
    assert time.monotonic() - start < GRACE_SECS
    assert server.store.hash("lease").get("until", "0") == "0", "its lease is free"
    assert "Traceback" not in replica.log.read_text()


@pytest.mark.parametrize("seed", range(2))
def test_so_it_does_while_redis_is_away_and_another_takes_over(
    own_server: Standalone, replicas: list[Replica], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    replica = started(own_server.url, replicas, tmp_path / "log")
    wait_for(lambda: leader(own_server.url), "it leads")
    own_server.pause()
    time.sleep(rng.uniform(0, 1.0))
    start = time.monotonic()
    assert replica.end(rng.choice([signal.SIGTERM, signal.SIGINT])) == 0
    assert time.monotonic() - start < GRACE_SECS
    own_server.resume()
    former = leader(own_server.url)
    started(own_server.url, replicas, tmp_path / "other")

    def has_changed() -> bool:
        return leader(own_server.url) not in {None, former}

    wait_for(has_changed, "the lease that was not given back has ended")


def leader(url: str) -> str | None:
    with SyncModelRegistry.from_url(url) as registry:
        return registry.status()[0].lease_holder


def test_a_second_signal_ends_it_at_once(
    server: Server, replicas: list[Replica], tmp_path: Path
) -> None:
    """The first one waits for a request that does not get on."""
    replica = started(server.url, replicas, tmp_path / "log")
    replica.up()
    with socket.create_connection(("127.0.0.1", replica.port)) as client:
        client.sendall(
            b"POST /api/controller/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        time.sleep(0.1)
        replica.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in replica.log.read_text(), "it has heard")
        time.sleep(0.5)
        assert replica.process.poll() is None, "it waits for the request"
        start = time.monotonic()
        assert replica.end(signal.SIGTERM) == 0
        assert time.monotonic() - start < 2
    assert server.store.hash("lease")["until"] == "0"


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    made: list[Agent] = []
    yield made
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.parametrize("seed", range(2))
def test_an_agent_ends_its_server_also_while_redis_is_away(
    own_server: Standalone, agents: list[Agent], tmp_path: Path, seed: int
) -> None:
    """It can't say goodbye then; its instance is dead at its timeout."""
    rng = random.Random(seed)
    agent = Agent(tmp_path / "log", "--url", own_server.url, "--settle-secs", "0")
    agents.append(agent)
    with SyncModelRegistry.from_url(
        own_server.url, heartbeat_timeout_secs=1.5
    ) as reader:

        def healthy() -> bool:
            found = reader.get_all_instances("toy@llm", healthy_only=True)
            return bool(found and found[0].ready)

        wait_for(healthy, "it is ready", within_secs=20)
        (child,) = agent.children()
        own_server.pause()
        time.sleep(rng.uniform(0, 0.5))
        start = time.monotonic()
        agent.term()
        agent.wait()
        assert time.monotonic() - start < GRACE_SECS
        assert not child.is_running()
        own_server.resume()
        wait_for(lambda: not healthy(), "it is dead to readers", within_secs=5)
