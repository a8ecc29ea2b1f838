"""The demo shows what it says, and leaves nothing behind; its worker copes with controllers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from tests.helpers import wait_for

ROOT = Path(__file__).resolve().parent.parent
DEMO_SECS = 45


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != "zombie":
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@contextmanager
def demo(home: Path, port: int, *options: str) -> Generator[subprocess.Popen[str]]:
    """The demo in a session of its own; what is left of it at the end is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--port", f"{port}", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            for pid in members(process.pid):
                os.kill(pid, signal.SIGKILL)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read the demo's output up to the line that holds ``text``."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return line
    pytest.fail(f"no {text!r} in\n{''.join(lines)}")


def test_every_state_is_as_expected(tmp_path: Path) -> None:
    with demo(tmp_path, 8001) as process:
        output, _ = process.communicate(timeout=DEMO_SECS)
        assert members(process.pid) == []
    assert process.returncode == 0, output
    assert "FAILED" not in output
    for line in (
        "all six workers are healthy on A and B",
        "llama3@llm :9001 is unhealthy on A and B",
        "the 5 live workers were healthy all the time",
        "A and B agree: 5 healthy, 1 unhealthy",
        "A and B agree: 4 healthy, 2 unhealthy",
        "from start to end no live worker was shown dead",
        "All 17 expectations met in",
    ):
        assert line in output, output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "line", "port"),
    [
        (signal.SIGINT, "controller A", 8101),
        (signal.SIGTERM, "two controllers, six workers", 8201),
        (signal.SIGINT, "A worker is killed", 8301),
    ],
)
def test_a_signal_ends_it_and_all_its_processes(
    tmp_path: Path, number: signal.Signals, line: str, port: int
) -> None:
    with demo(tmp_path, port) as process:
        read_until(process, line)
        process.send_signal(number)
        output, _ = process.communicate(timeout=15)
        assert members(process.pid) == []
    assert process.returncode == 128 + number
    assert f"ended by {number.name}" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends our orphans")
def test_its_processes_end_even_when_it_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path, 8401) as process:
        read_until(process, "all six workers are healthy")
        assert (
            len(members(process.pid)) >= 9
        )  # itself, a server, 2 controllers, workers
        process.kill()
        process.wait()
        wait_for(lambda: not members(process.pid), "all of its processes are gone")


def child(process: subprocess.Popen[str], argument: str) -> psutil.Process:
    """The demo's child that was started with ``argument``."""
    found: list[psutil.Process] = []

    def look() -> bool:
        children = psutil.Process(process.pid).children()
        with suppress(psutil.Error):
            found.extend(child for child in children if argument in child.cmdline())
        return bool(found)

    wait_for(look, f"a child with {argument}")
    return found[0]


def test_it_sees_a_live_worker_that_is_shown_dead(tmp_path: Path) -> None:
    with demo(tmp_path, 8501) as process:
        read_until(process, "all six workers are healthy")
        child(process, "9002").suspend()
        line = read_until(process, "FAILED")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)
    assert "the 5 live workers were healthy all the time" in line
    assert "shows llama3@llm :9002 dead" in line


def test_it_says_which_process_did_not_start(tmp_path: Path) -> None:
    with demo(tmp_path, 8601) as process:
        child(process, "8602").kill()
        output, _ = process.communicate(timeout=15)
        assert members(process.pid) == []
    assert process.returncode == 1
    assert "controller B ended; its log" in output
    assert "FAILED: 1 of 1 expectations" in output
    logs = [path.parent for path in tmp_path.glob("*/controller-B.log")]
    assert str(logs[0]) in output


class Controller(ThreadingHTTPServer):
    """A stand-in that notes what it is asked, and answers with one status."""

    def __init__(self, status: int = 200, delay_secs: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.delay_secs = delay_secs
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Controller  # pyright: ignore[reportIncompatibleVariableOverride]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.command} {self.path}")
        time.sleep(self.server.delay_secs)
        with suppress(BrokenPipeError):  # the worker may have moved on
            self.send_response(self.server.status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"true")

    do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def controllers(*servers: Controller) -> Generator[tuple[Controller, ...]]:
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def worker(urls: str, interval: float) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "examples/worker.py", "--model", "glm@llm", "--port"]
    command += ["8001", "--controllers", urls, "--interval", f"{interval}"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_registers_beats_and_says_goodbye() -> None:
    with controllers(Controller()) as (only,), worker(only.url, 0.1) as process:
        wait_for(lambda: len(only.asked) > 2, "it beats")
        process.terminate()
        assert process.wait(timeout=5) == 0
    assert only.asked[0] == "POST /api/controller/models"
    assert set(only.asked[1:-1]) == {"POST /api/controller/heartbeat"}
    goodbye = urlsplit(only.asked[-1].removeprefix("DELETE "))
    assert goodbye.path == "/api/controller/models"
    assert parse_qs(goodbye.query) == {
        "model_name": ["glm@llm"],
        "host": ["127.0.0.1"],
        "port": ["8001"],
    }


@pytest.mark.parametrize(
    "bad",
    [{"status": 503}, {"delay_secs": 2.0}],
    ids=["in trouble", "silent"],
)
def test_a_worker_moves_on_within_the_same_beat(bad: dict[str, float]) -> None:
    first, second = Controller(**bad), Controller()  # pyright: ignore[reportArgumentType]
    urls = f"{first.url},{second.url}"
    with controllers(first, second), worker(urls, interval=1.0):
        wait_for(lambda: len(second.asked) > 1, "it moves on, and stays there")
    assert first.asked == ["POST /api/controller/models"]
    assert second.asked[0] == first.asked[0]


def test_a_worker_stops_when_it_is_refused() -> None:
    with controllers(Controller(status=422)) as (only,), worker(only.url, 5) as process:
        output, _ = process.communicate(timeout=5)
    assert process.returncode == 1
    assert "refuses: 422" in output
