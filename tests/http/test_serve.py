"""``redis-registry serve`` as a process: starts, tells the truth, stops cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server
from tests.helpers import wait_for
from tests.places import Place
from tests.replica import Replica

BODY = {"model_name": "glm@llm", "host": "10.0.0.1", "port": 8001}


def test_it_serves_logs_and_stops_with_zero(
    server: Server, replicas: list[Replica], tmp_path: Path
) -> None:
    replica = Replica("--url", server.url, log=tmp_path / "log")
    replicas.append(replica)
    replica.up()
    assert httpx.post(f"{replica.base}/api/controller/models", json=BODY).text == "true"

    assert replica.end() == 0

    events = [line["event"] for line in replica.lines()]
    assert events[0] == "controller starts"
    assert events[-2:] == ["stopping", "controller stopped"]
    lease = server.store.hash("lease")
    assert lease["until"] == "0", "the lease was given back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_with_zero_also_while_redis_is_away(
    own_server: Place, replicas: list[Replica], tmp_path: Path, number: int
) -> None:
    replica = Replica("--url", own_server.url, log=tmp_path / "log")
    replicas.append(replica)
    replica.up()
    own_server.signal(signal.SIGSTOP)
    wait_for(lambda: replica.health() == 503, "health tells", within_secs=10)
    start = time.monotonic()

    assert replica.end(number) == 0

    assert time.monotonic() - start < 10
    own_server.signal(signal.SIGCONT)


def test_it_starts_without_redis_and_recovers_when_it_comes(
    own_server: Place, replicas: list[Replica], tmp_path: Path
) -> None:
    own_server.kill()
    replica = Replica("--url", own_server.url, log=tmp_path / "log")
    replicas.append(replica)
    wait_for(lambda: replica.health() == 503, "it tells why", within_secs=20)
    own_server.start()
    replica.up()
    assert replica.end() == 0


def test_embedded_needs_nothing_else_and_leaves_nothing(
    replicas: list[Replica], tmp_path: Path
) -> None:
    replica = Replica("--embedded", log=tmp_path / "log")
    replicas.append(replica)
    replica.up()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(replica.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(children) == 1

    replica.process.kill()  # not a chance to clean up
    replica.process.wait()

    wait_for(lambda: not Path(f"/proc/{children[0]}").exists(), "its server is gone")


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redis_registry", *args],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["serve", "--url", "http://x"], 2, "can't connect to 'http' URLs"),
        (["serve", "--heartbeat-timeout-secs", "-1"], 2, "heartbeat_timeout_secs"),
        (["serve", "--log-level", "loud"], 2, "debug, info"),
        (["serve", "--log-format", "xml"], 2, "console or json"),
        (
            ["list", "--url", "redis://127.0.0.1:1/0"],
            1,
            "no answer from Redis at 127.0.0.1:1",
        ),
        (["nonsense"], 2, "No such command"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_mistakes_are_told_in_a_line(args: list[str], code: int, says: str) -> None:
    done = run(*args)
    assert done.returncode == code
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(
    server: Server, replicas: list[Replica], tmp_path: Path
) -> None:
    replica = Replica("--url", server.url, log=tmp_path / "log")
    replicas.append(replica)
    replica.up()
    done = run("serve", "--url", server.url, "--port", str(replica.port))
    assert done.returncode == 2
    assert (
        f"can't listen on 127.0.0.1:{replica.port}: Address already in use"
        in done.stderr
    )
    assert replica.end() == 0


def test_list_and_status_show_what_is_there(server: Server) -> None:
    from redis_registry import SyncModelRegistry
    from tests.helpers import instance

    assert run("list", REDIS_REGISTRY_URL=server.url).stdout == "no instances\n"
    with SyncModelRegistry.from_url(server.url) as registry:
        registry.register_instance(instance(1))
        registry.register_instance(instance(2, "[red]odd[/] @llm", enabled=False))
        registry.deregister_instance(instance(1))

    table = run("list", "--url", server.url, COLUMNS="120").stdout
    assert "glm@llm" in table
    assert "unhealthy" in table
    assert "[red]odd[/] @llm" in table
    some = run("list", "--url", server.url, "--healthy", "--json").stdout
    assert [json.loads(line)["port"] for line in some.splitlines()] == [2]
    assert (
        run("list", "--url", server.url, "--model", "x").stdout
        == "no instances of 'x'\n"
    )
    status = run("status", "--url", server.url).stdout
    assert "1 living" in status
    assert "nobody (term 0)" in status
    told = json.loads(run("status", "--url", server.url, "--json").stdout)
    assert sum(partition["living"] for partition in told) == 1
    assert run("version").stdout.startswith("0.")
    assert "serve" in run("--help").stdout
