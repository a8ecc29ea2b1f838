"""The sidecar: a server that knows no registry becomes a worker that tells the truth."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import httpx
import psutil
import pytest

from redis_registry import ModelInstance, Readiness, SyncModelRegistry
from redis_registry.embedded import free_port
from tests.agent.conftest import TOY, Agent, only, ready
from tests.conftest import Server
from tests.helpers import wait_for
from tests.places import Place
from tests.replica import Replica

Start = Callable[..., Agent]
HEALTH = ("--health", "http://127.0.0.1:PORT/health")
METRICS = ("--metrics", "http://127.0.0.1:PORT/metrics")


def readiness(reader: SyncModelRegistry) -> Readiness | None:
    found = only(reader)
    return found and found.readiness


def test_starting_ready_ill_well_and_the_exit_code_of_the_server(
    agent: Start, reader: SyncModelRegistry, server: Server
) -> None:
    one = agent(*HEALTH, command=None)
    wait_for(lambda: only(reader) is not None, "listed", within_secs=15)
    ready(reader)
    one.get("/ill")
    wait_for(lambda: readiness(reader) is Readiness.NOT_READY, "its probe fails")
    found = only(reader)
    assert found
    assert found.healthy
    assert found.reason == f"{one.at}/health answers 500"
    assert reader.select_one_health_instance("toy@llm") is None
    one.get("/well")
    ready(reader)
    (child,) = one.children()
    one.term()
    assert one.wait() == 7, "the server's own code"
    assert not child.is_running()
    found = only(reader)
    assert found
    assert not found.healthy
    told = server.store.kinds(found)
    assert told == [
        "registered",
        "ready",
        "not_ready",
        "ready",
        "draining",
        "deregistered",
    ]


def test_it_is_listed_and_not_selected_while_it_starts(
    agent: Start, reader: SyncModelRegistry
) -> None:
    port = free_port()
    agent(command=[*TOY, str(port), "late"])
    wait_for(lambda: only(reader) is not None, "listed", within_secs=15)
    assert readiness(reader) is Readiness.STARTING
    assert reader.select_one_health_instance("toy@llm") is None


@pytest.mark.parametrize(
    "health",
    [
        (),
        ("--health", "tcp://127.0.0.1:PORT"),
        ("--health", "sh -c 'test -e /proc/self'"),
    ],
)
def test_other_probes(
    agent: Start, reader: SyncModelRegistry, health: tuple[str, ...]
) -> None:
    agent(*health)
    ready(reader)


def test_a_command_that_fails_is_an_ill_server(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent("--health", "sh -c 'exit 3'", "--startup-budget-secs", "0.5")
    assert one.wait() == 69
    assert "sh ends with 3" in one.said()
    assert only(reader) is None


def test_a_running_server_is_adopted_and_left_running(
    agent: Start, reader: SyncModelRegistry
) -> None:
    port = free_port()
    with subprocess.Popen([*TOY, str(port)]) as toy:
        one = agent("--health", f"http://127.0.0.1:{port}/health", command=[])
        ready(reader)
        one.term()
        assert one.wait() == 0
        assert toy.poll() is None
        toy.terminate()
    found = only(reader)
    assert found
    assert not found.healthy


def test_an_adopted_server_that_is_gone_is_not_ready_at_once(
    agent: Start, reader: SyncModelRegistry
) -> None:
    """A refused connection is hard evidence: it needs no second failure."""
    port = free_port()
    with subprocess.Popen([*TOY, str(port)]) as toy:
        health = ("--health", f"http://127.0.0.1:{port}/health")
        agent(*health, "--failures", "1000", command=[])
        ready(reader)
        toy.kill()
    wait_for(lambda: readiness(reader) is Readiness.NOT_READY, "seen", within_secs=1)
    found = only(reader)
    assert found
    assert "Connection refused" in (found.reason or "")


def test_sigterm_no_new_pick_and_work_in_flight_is_finished(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH, *METRICS)
    ready(reader)
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(one.get("/slow?1.5").text))
    asking.start()
    wait_for(lambda: _load(reader) == 1, "the work is seen")
    asked = time.monotonic()
    one.term()
    last = asked
    while time.monotonic() < asked + 0.5:
        if reader.select_one_health_instance("toy@llm"):
            last = time.monotonic()
    assert last - asked < 0.1
    assert one.wait() == 7
    asking.join()
    assert answers == ["whole"]
    assert time.monotonic() - asked < 6
    assert "in_flight=1" in one.said()


def _load(reader: SyncModelRegistry) -> int | None:
    found = only(reader)
    return found.load.in_flight if found and found.load else None


def test_the_load_is_read_from_the_metrics(
    agent: Start, reader: SyncModelRegistry
) -> None:
    agent(*HEALTH, *METRICS)
    wait_for(lambda: _load(reader) == 0, "the load arrives", within_secs=15)
    found = only(reader)
    assert found
    assert found.load
    assert (found.load.queued, found.load.numbers) == (0, {"kv_cache": 0.25})


def test_metrics_that_cannot_be_read_are_told_and_harm_nobody(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH, "--metrics", "http://127.0.0.1:PORT/nothing")
    ready(reader)
    wait_for(lambda: "can't read the metrics" in one.said(), "it is told")
    assert readiness(reader) is Readiness.READY


def test_a_crash_is_seen_at_once_and_its_code_passed_on(
    agent: Start, reader: SyncModelRegistry, server: Server
) -> None:
    one = agent(*HEALTH, "--probe-interval-secs", "30")
    ready(reader)
    with pytest.raises(httpx.HTTPError):
        one.get("/crash")
    start = time.monotonic()
    assert one.wait() == 9
    assert time.monotonic() - start < 2
    found = only(reader)
    assert found
    assert not found.healthy
    assert server.store.kinds(found) == ["registered", "ready", "deregistered"]


def test_a_server_killed_by_a_signal(agent: Start, reader: SyncModelRegistry) -> None:
    one = agent(*HEALTH)
    ready(reader)
    one.children()[0].kill()
    assert one.wait() == 128 + signal.SIGKILL


def test_a_deaf_server_is_killed_after_its_time(
    agent: Start, reader: SyncModelRegistry
) -> None:
    port = free_port()
    one = agent(
        *("--health", f"http://127.0.0.1:{port}/health"),
        *("--settle-secs", "0", "--stop-timeout-secs", "0.3"),
        command=[*TOY, str(port), "deaf"],
    )
    ready(reader)
    one.term()
    assert one.wait() == 128 + signal.SIGKILL
    assert "did not end, killing it" in one.said()


def test_more_signals_mean_more_haste(agent: Start, reader: SyncModelRegistry) -> None:
    port = free_port()
    one = agent(
        *("--health", f"http://127.0.0.1:{port}/health", "--settle-secs", "60"),
        command=[*TOY, str(port), "deaf"],
    )
    ready(reader)
    for said in ("draining; once", "stopping; once", "killing"):
        one.term()
        wait_for(lambda said=said: said in one.said(), said)
    assert one.wait() == 128 + signal.SIGKILL


def test_when_the_agent_is_killed_the_server_goes_with_it(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH)
    ready(reader)
    children = one.children()
    one.process.kill()
    _, alive = psutil.wait_procs(children, 5)
    assert alive == []
    wait_for(lambda: not (f := only(reader)) or not f.healthy, "its silence tells")


def test_a_newer_agent_supersedes(agent: Start, reader: SyncModelRegistry) -> None:
    one = agent(*HEALTH, "--settle-secs", "0")
    ready(reader)
    reader.register_instance(
        ModelInstance(
            model_name="toy@llm",
            host="127.0.0.1",
            port=one.port,
            incarnation="f" * 22,
        )
    )
    assert one.wait() == 75
    assert "has taken the address" in one.said()
    found = only(reader)
    assert found
    assert (found.healthy, found.incarnation) == (True, "f" * 22)


def test_redis_may_be_away_at_first(agent: Start, own_server: Place) -> None:
    url = own_server.url
    own_server.kill()
    one = agent(*HEALTH, url=url)
    wait_for(lambda: _answers(one), "the server runs all the same", within_secs=15)
    own_server.start()
    with SyncModelRegistry.from_url(url, heartbeat_timeout_secs=1.5) as reader:
        wait_for(
            lambda: (found := only(reader)) is not None and found.ready,
            "announced once Redis is there",
            within_secs=15,
        )
        one.term()
        assert one.wait() == 7


def _answers(one: Agent) -> bool:
    try:
        return one.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_through_a_controller(
    agent: Start,
    reader: SyncModelRegistry,
    server: Server,
    replicas: list[Replica],
    tmp_path: object,
) -> None:
    from pathlib import Path

    replica = Replica("--url", server.url, log=Path(str(tmp_path)) / "replica")
    replicas.append(replica)
    replica.up()
    away = f"redis://127.0.0.1:{free_port()}"
    one = agent(*HEALTH, "--controller", replica.base, url=away)
    ready(reader)
    one.term()
    assert one.wait() == 7


@pytest.mark.parametrize(
    ("options", "command", "code", "told"),
    [
        ((), ["no-such-command"], 127, "no such command: no-such-command"),
        ((), [__file__], 126, "is not executable"),
        (("--host", "nosuch.invalid"), None, 68, "--host: can't resolve"),
        (("--health", "http://nosuch.invalid/"), None, 68, "--health: can't resolve"),
        (("--url", "redis://nosuch.invalid"), None, 68, "--url: can't resolve"),
        (("--startup-budget-secs", "0.5"), ["sleep", "60"], 69, "Connection refused"),
        (("--health", "tcp://127.0.0.1"), None, 2, "no host and port"),
        (("--health", "''"), None, 2, "give http://"),
        (("--model", " "), None, 2, "model_name"),
        (("--host", "0.0.0.0"), None, 2, "binds to"),
        (("--heartbeat-timeout-secs", "0"), None, 2, "heartbeat_timeout_secs"),
        (("--controller", "a:1"), None, 2, "controllers"),
    ],
)
def test_bad_use(
    agent: Start,
    reader: SyncModelRegistry,
    options: tuple[str, ...],
    command: list[str] | None,
    code: int,
    told: str,
) -> None:
    one = agent(*options, command=command)
    assert one.wait() == code, one.said()
    (line,) = [
        line for line in one.said().splitlines() if line.startswith("redis-registry:")
    ]
    assert told in line
    assert reader.get_all_model_instances() == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_in_use(agent: Start, reader: SyncModelRegistry, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    with socket.create_server((address, 0), family=family) as taken:
        one = agent("--port", str(taken.getsockname()[1]))
        assert one.wait() == 73
    assert "is in use" in one.said()
    assert reader.get_all_model_instances() == []


def test_never_healthy_is_an_event(agent: Start, server: Server) -> None:
    one = agent(*HEALTH, "--startup-budget-secs", "0.5", command=["sleep", "60"])
    assert one.wait() == 69
    events = server.store.of("toy@llm").events()
    kinds = [event.kind.value for event in events if event.subject]
    assert kinds[-2:] == ["failed", "removed"]


def test_a_server_that_never_was_well_leaves_no_record(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(command=["sh", "-c", "exit 5"])
    assert one.wait() == 5
    assert only(reader) is None


def test_a_server_that_hangs_is_not_ready_and_comes_back(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH, "--probe-timeout-secs", "0.2")
    ready(reader)
    (child,) = one.children()
    child.suspend()
    wait_for(lambda: readiness(reader) is Readiness.NOT_READY, "it is seen")
    child.resume()
    ready(reader)


def test_work_without_progress_is_wedged_until_there_is_some(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH, *METRICS, "--progress-timeout-secs", "0.5")
    ready(reader)
    asking = threading.Thread(target=one.get, args=("/slow?1.5",))
    asking.start()
    wait_for(lambda: readiness(reader) is Readiness.WEDGED, "nothing gets done")
    asking.join()
    ready(reader)


def test_a_ctrl_c_is_for_the_agent_only(
    agent: Start, reader: SyncModelRegistry
) -> None:
    one = agent(*HEALTH, "--settle-secs", "0")
    ready(reader)
    (child,) = one.children()
    assert os.getpgid(child.pid) == child.pid != os.getpgid(one.process.pid)
    one.process.send_signal(signal.SIGINT)
    assert one.wait() == 7
