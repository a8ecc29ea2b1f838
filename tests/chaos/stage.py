"""Where a run takes place: real servers, and processes that can be killed, stopped, cut off and ordered about."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any, Literal

from redis_registry.embedded import die_with
from redis_registry.testing import (
    Clocked,
    Cluster,
    Proxy,
    Replica,
    SentinelSet,
    Standalone,
    wrong_clock,
)
from redis_registry.testing.entering import Entering
from tests.chaos.auditor import Auditor
from tests.chaos.notebook import Note, Notebook, read_notes

__all__ = ["Company", "Player", "Stage", "Topology"]

Topology = Literal["standalone", "sentinel", "cluster"]

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("a", "b", "c")
TIMEOUT_SECS = 1.5
LEAVE_SECS = 10.0
BEGIN_SECS = 60.0  # Python starts slowly where many plots play at once

SETTINGS: dict[str, Any] = {
    "heartbeat_timeout_secs": TIMEOUT_SECS,
    "heartbeat_interval_secs": 0.5,
    "socket_timeout_secs": 0.7,
    "operation_timeout_secs": 3.0,
    "forget_after_secs": 12.0,
    "reservation_ttl_secs": 3.0,
    # Killing and restarting workers is what we do; that it is damped has tests of its own.
    "outliers": {"flap_damping": False},
}
PATIENT = {
    "operation_timeout_secs": 15.0,
    "socket_timeout_secs": 0.7,
    "heartbeat_timeout_secs": 3.0,
}
"""Where a failover takes seconds, a caller's deadline must be longer; a timeout is some attempts long."""


@dataclass(frozen=True)
class Company:
    """Who plays.

    Attributes:
        workers: Processes with an instance of each model, and one that beats without incarnation.
        controllers: Processes that sweep, watch and read.
        routers: Processes that choose from a view, reserve and watch.
        skews_secs: By how much the clock of the n-th process is wrong, in turn.
    """

    workers: int = 2
    controllers: int = 2
    routers: int = 1
    skews_secs: tuple[float, ...] = ()


@dataclass
class Player:
    """A process of the run.

    Attributes:
        name: In notebooks.
        role: What it plays.
        book: The stage's notebook.
        notebook: Its own.
        process: Its process.
        proxy: Between it and the server; only where there is one server.
        again: Starts another one in its place.
    """

    name: str
    role: str
    book: Notebook
    notebook: Path
    process: subprocess.Popen[bytes]
    proxy: Proxy | None
    again: Callable[[], Player]
    paused: bool = False
    gone: bool = False
    faults: list[str] = field(default_factory=list[str])

    @property
    def runs(self) -> bool:
        """Whether it is there, and not stopped."""
        return not self.gone and not self.paused and self.process.poll() is None

    def order(self, do: str, **more: object) -> None:
        """Tell it to do something; see :meth:`tests.chaos.actor.Actor.obey`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, which the judge sees

    def await_born(self) -> None:
        """Wait until it plays: before that it does not even know what SIGTERM means."""
        end = time.monotonic() + BEGIN_SECS
        while not self._born() and self.process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name} does not begin")
            time.sleep(0.01)

    def _born(self) -> bool:
        return self.notebook.exists() and b'"born"' in self.notebook.read_bytes()[:4096]

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.gone = True
        self.process.send_signal(SIGKILL)
        self.process.wait()
        self.book.write("killed", player=self.name)

    def pause(self) -> None:
        """Stop it (SIGSTOP)."""
        self.paused = True
        self.process.send_signal(SIGSTOP)
        self.book.write("paused", player=self.name)

    def resume(self) -> None:
        """Let it go on."""
        self.paused = False
        self.process.send_signal(SIGCONT)
        self.book.write("resumed", player=self.name)

    def disconnect(self, how: str) -> None:
        """Break its network: ``refusing``, ``frozen`` or ``swallowing``, as of a proxy."""
        assert self.proxy is not None, "this plot is for one server"
        self.book.write("cut off", player=self.name)
        setattr(self.proxy, how, True)
        if how == "refusing":
            self.proxy.cut()

    def reconnect(self) -> None:
        """Mend its network."""
        proxy = self.proxy
        if proxy is not None:
            proxy.delay_secs = 0.0
            if proxy.refusing or proxy.frozen or proxy.swallowing:
                proxy.refusing = proxy.frozen = proxy.swallowing = False
                self.book.write("joined", player=self.name)

    def leave(self) -> int:
        """Ask it to leave (SIGTERM), and wait; its exit code."""
        if not self.gone:
            self.await_born()
        self.gone = True
        self.book.write("leaves", player=self.name)
        self.process.send_signal(SIGCONT)
        self.process.send_signal(SIGTERM)
        try:
            code = self.process.wait(LEAVE_SECS)
        except subprocess.TimeoutExpired:
            self.book.write("stuck", player=self.name)
            self.process.kill()
            code = self.process.wait()
        self.book.write("gone", player=self.name, code=code)
        return code


class Stage(Entering):
    """The servers and the processes of one run; a context manager.

    Args:
        topology: What kind of Redis.
        home: Where notebooks and logs go.
        seed: What all chance follows from.
        binary: The server to run; ``None``: the embedded one.
        company: Who plays.
        options: More of the servers' command line.
        clocked: The one server has a clock that can be set.
        spare: The one server has a replica, behind a link that can be broken.
        settings: More of the registries' settings.
        package: Where the package to be tried is imported from; ``None``: the tree.
    """

    def __init__(
        self,
        topology: Topology,
        home: Path,
        *,
        seed: int = 0,
        binary: str | None = None,
        company: Company | None = None,
        options: Mapping[str, str] | None = None,
        clocked: bool = False,
        spare: bool = False,
        settings: Mapping[str, Any] | None = None,
        package: Path | None = None,
    ) -> None:
        self.topology: Topology = topology
        self.home = home
        self.chance = random.Random(seed)
        self.company = company or Company()
        self.settings = SETTINGS | ({} if topology == "standalone" else PATIENT)
        self.settings |= settings or {}
        self.partitions = 3 if topology == "cluster" else 1
        self.settings["partitions"] = self.partitions
        self.book = Notebook(home / "stage.notes", "stage")
        self.players: dict[str, Player] = {}
        self.server: Standalone | None = None
        self.spare: Replica | None = None
        self.link: Proxy | None = None
        self.sentinels: SentinelSet | None = None
        self.cluster: Cluster | None = None
        self._package = package or ROOT
        self._made = 0
        self.calm_at = 0.0
        self._open(binary, dict(options or {}), clocked=clocked)
        if spare:
            self.spare = Replica(self.one, binary=binary)

    def _open(
        self, binary: str | None, options: dict[str, str], *, clocked: bool
    ) -> None:
        durable = {"appendonly": "yes", "appendfsync": "always"} | options
        if self.topology == "standalone":
            kind = Clocked if clocked else Standalone
            self.server = kind(binary=binary, options=durable)
        elif self.topology == "sentinel":
            self.sentinels = SentinelSet(binary=binary, options=options)
        else:
            self.cluster = Cluster(binary=binary, options=options)

    @property
    def servers(self) -> Sequence[Standalone]:
        """All servers that hold data, dead ones too."""
        if self.server is not None:
            return [self.server, self.spare] if self.spare else [self.server]
        if self.sentinels is not None:
            return self.sentinels.servers
        assert self.cluster is not None
        return self.cluster.nodes

    @property
    def one(self) -> Standalone:
        """The one server there is."""
        assert self.server is not None, "this plot is for one server"
        return self.server

    @property
    def url(self) -> str:
        """Where the registry is, without a proxy."""
        for place in (self.server, self.sentinels, self.cluster):
            if place is not None:
                return place.url
        raise AssertionError

    @property
    def timeout(self) -> float:
        """The heartbeat timeout in seconds."""
        return float(self.settings["heartbeat_timeout_secs"])

    def _enter(self) -> None:
        enter = self._stack.enter_context
        self._stack.callback(self.book.close)
        for place in (self.server, self.sentinels, self.cluster):
            if place is not None:
                enter(place)
        if self.spare is not None:
            self.link = enter(Proxy(self.one.port))
            enter(self.spare).call("REPLICAOF", "127.0.0.1", self.link.port)
        self.book.write(
            "opens",
            topology=self.topology,
            settings=self.settings,
            partitions=self.partitions,
        )
        auditor = Auditor(self.book, lambda: list(self.servers), self.partitions)
        auditor.start()
        self._stack.callback(auditor.close)
        self._stack.callback(self._clear)

    def _clear(self) -> None:
        for player in self.players.values():
            if player.process.poll() is None:
                player.process.send_signal(SIGCONT)
                player.process.kill()
                player.process.wait()
            if player.process.stdin is not None:
                player.process.stdin.close()

    # --- players ----------------------------------------------------------------------------------

    def cast(self) -> None:
        """Start the whole company."""
        company = self.company
        for number in range(company.controllers):
            self.add("controller", f"controller{number + 1}")
        for number in range(company.workers):
            self.add("worker", f"worker{number + 1}", port=number + 1)
        for number in range(company.routers):
            self.add("router", f"router{number + 1}")

    def add(
        self, role: str, name: str, *, port: int = 0, models: Sequence[str] = MODELS
    ) -> Player:
        """Start a process; a name that was there before gets a number."""
        self._made += 1
        unique = f"{name}.{self._made}"
        proxy = None
        url = self.url
        if self.server is not None:
            proxy = self._stack.enter_context(Proxy(self.server.port))
            url = proxy.url
        command = [sys.executable, "-m", "tests.chaos.actor", role]
        command += ["--url", url, "--name", unique, "--models", ",".join(models)]
        command += ["--port", str(port), "--seed", str(self.chance.random())]
        command += ["--settings", json.dumps(self.settings)]
        command += ["--notes", str(self.home / f"{unique}.notes")]
        process = subprocess.Popen(
            command,
            cwd=self._package,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(self.home / f"{unique}.log").open("ab"),
            env=os.environ | self._skew(),
            preexec_fn=die_with(os.getpid(), SIGKILL),  # noqa: PLW1509  only calls prctl
        )

        def again() -> Player:
            return self.add(role, name, port=port, models=models)

        notebook = self.home / f"{unique}.notes"
        player = Player(unique, role, self.book, notebook, process, proxy, again)
        self.players[unique] = player
        self.book.write("player", player=unique, role=role, port=port)
        return player

    def _skew(self) -> dict[str, str]:
        skews = self.company.skews_secs
        secs = skews[self._made % len(skews)] if skews else 0.0
        return wrong_clock(secs) if secs else {}

    def fail_over(self) -> None:
        """The one server dies, its replica takes its place, with what it has."""
        old, new = self.one, self.spare
        assert new is not None, "this plot needs a spare"
        old.kill()
        new.promote()
        self.server, self.spare = new, None
        for player in self.players.values():
            if player.proxy is not None:
                player.proxy.target = new.port
                player.proxy.cut()

    def those(self, role: str) -> list[Player]:
        """The players of a role that run."""
        return [p for p in self.players.values() if p.role == role and p.runs]

    def one_of(self, role: str) -> Player:
        """One of them, by chance."""
        return self.chance.choice(self.those(role))

    def leader(self) -> Player:
        """The controller that swept last, as its notebook says."""
        found: tuple[float, Player] | None = None
        for player in self.those("controller"):
            for note in self.notes(player):
                if note["what"] == "call" and note.get("token"):
                    found = max(
                        found or (0.0, player), (note["at"], player), key=lambda f: f[0]
                    )
        assert found is not None, "nobody leads"
        return found[1]

    def notes(self, player: Player) -> list[Note]:
        """What a player has noted so far."""
        path = player.notebook
        return list(read_notes(path)) if path.exists() else []

    # --- time -------------------------------------------------------------------------------------

    def calm(self, secs: float) -> None:
        """Let them play undisturbed: this is the length of a scene, not a wait for luck."""
        time.sleep(secs)

    def until(
        self, condition: Callable[[], object], what: str, *, within_secs: float = 20.0
    ) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: It did not come true; the run is a failure.
        """
        end = time.monotonic() + within_secs
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {within_secs:g} s: {what}")
            time.sleep(0.02)

    def fault(self, name: str, **more: object) -> None:
        """Note what is done to them next."""
        self.book.write("fault", name=name, **more)
