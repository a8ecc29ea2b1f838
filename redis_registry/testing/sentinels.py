"""A primary, its replicas, and the sentinels that watch over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from redis_registry.errors import EmbeddedServerError
from redis_registry.testing.entering import Entering
from redis_registry.testing.link import Said
from redis_registry.testing.netns import Host, in_turn
from redis_registry.testing.servers import Replica, Standalone, userinfo
from redis_registry.testing.waiting import await_that

__all__ = ["Sentinel", "SentinelSet"]

_PERIODS_MS = {"PING": 300, "INFO": 200, "PUBLISH": 600, "ASK": 100}
# Five PING periods must be longer than the second that passes between two INFOs of a replica
# whose primary is down: else its INFO is too old, there is "no good slave", and no failover. Four
# PUBLISH periods must be longer than it takes the others to hear of a promotion: else they demote
# the one that was promoted, and the failover is undone.


class Sentinel(Standalone):
    """One sentinel.

    Args:
        config: The lines of its configuration about whom it watches.
        binary: The server to run.
        on: The host that it runs on.
    """

    def __init__(
        self, config: list[str], *, binary: str | None = None, on: Host | None = None
    ) -> None:
        super().__init__(binary=binary, on=on)
        self._config = config

    def start(self) -> None:
        """Start it, and have it look more often than anyone would in production."""
        super().start()
        for name, millis in _PERIODS_MS.items():
            self.call("SENTINEL", "DEBUG", f"{name}-PERIOD", millis)

    def _command(self, binary: str, home: Path) -> list[str]:
        file = home / "sentinel.conf"
        if not file.exists():  # started again it goes on with what it knew
            lines = [f"port {self.port}", f"bind {self.host}", f'dir "{home}"']
            lines += ["protected-mode no"]
            file.write_text("\n".join([*lines, *self._config, ""]))
        prefix = self._on.command() if self._on else []
        return [*prefix, binary, str(file), "--sentinel"]

    def table(self, *words: str) -> dict[str, str]:
        """The reply to a ``SENTINEL`` command that tells of one server."""
        flat = cast("list[str]", self.call("SENTINEL", *words))
        return dict(zip(flat[::2], flat[1::2], strict=True))


class SentinelSet(Entering):
    """A primary with replicas under sentinels that fail over quickly; a context manager.

    Entered, all sentinels know all servers and each other.

    Example:
        >>> with SentinelSet() as sentinels:
        ...     old = sentinels.kill_master()
        ...     new = sentinels.await_new_master(old)

    Args:
        replicas: How many follow the primary.
        sentinels: How many sentinels; the majority of them decides.
        binary: The server to run, for all.
        options: More of the command line of primary and replicas.
        password: What primary and replicas demand; the sentinels demand none.
        down_after_secs: Silent for so long, a server is down to a sentinel.
        failover_secs: Within so long a failover must be done (``failover-timeout``); twice that
            passes before one that failed is tried again.
        hosts: The hosts of a :class:`redis_registry.testing.Network`: the first server and the
            first sentinel run on the first, and so on.

    Attributes:
        name: By which name the sentinels know the primary.
        servers: Primary and replicas, in the order in which they were started.
        sentinels: The sentinels.
    """

    name = "mymaster"

    def __init__(
        self,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        binary: str | None = None,
        options: Mapping[str, str] | None = None,
        password: str | None = None,
        down_after_secs: float = 0.5,
        failover_secs: float = 2.0,
        hosts: Sequence[Host] = (),
    ) -> None:
        self._hosts = hosts
        self._counts = replicas, sentinels
        self._binary = binary
        self._options = {"repl-ping-replica-period": "1"} | dict(options or {})
        self._password = password
        self._down_after_secs = down_after_secs
        self._failover_secs = failover_secs
        self.servers: list[Standalone] = []
        self.sentinels: list[Sentinel] = []

    @property
    def url(self) -> str:
        """The sentinels' addresses and the primary's name, as a ``redis+sentinel://`` URL."""
        who = userinfo(self._password)
        places = ",".join(f"{s.host}:{s.port}" for s in self.sentinels)
        return f"redis+sentinel://{who}{places}/{self.name}/0"

    def _enter(self) -> None:
        stack = self._stack
        replicas, sentinels = self._counts
        primary = Standalone(
            binary=self._binary,
            options=self._options,
            password=self._password,
            on=in_turn(self._hosts, 0),
        )
        self.servers = [stack.enter_context(primary)]
        self.sentinels = []
        for number in range(1, replicas + 1):
            replica = Replica(
                primary,
                binary=self._binary,
                options=self._options,
                on=in_turn(self._hosts, number),
            )
            self.servers.append(stack.enter_context(replica))
        quorum = sentinels // 2 + 1
        for number in range(sentinels):
            # Those that the quorum does not need are slower, so that they vote and don't stand
            # for election: where all stand, each votes for itself, and seconds pass.
            down_after = self._down_after_secs * (2 if number >= quorum else 1)
            config = self._config(primary, quorum, down_after)
            host = in_turn(self._hosts, number)
            sentinel = Sentinel(config, binary=self._binary, on=host)
            self.sentinels.append(stack.enter_context(sentinel))
        await_that(self._acquainted, "all sentinels know all servers and each other")

    def _config(
        self, primary: Standalone, quorum: int, down_after_secs: float
    ) -> list[str]:
        down_ms, failover_ms = (
            round(secs * 1000) for secs in (down_after_secs, self._failover_secs)
        )
        lines = [
            f"monitor {self.name} {primary.host} {primary.port} {quorum}",
            f"down-after-milliseconds {self.name} {down_ms}",
            f"failover-timeout {self.name} {failover_ms}",
        ]
        if primary.login:
            user, password = primary.login
            lines += [f"auth-user {self.name} {user}"]
            lines += [f"auth-pass {self.name} {password}"]
        return [f"sentinel {line}" for line in lines]

    def _acquainted(self) -> bool:
        replicas, sentinels = self._counts
        known = {
            "flags": "master",
            "num-slaves": str(replicas),
            "num-other-sentinels": str(sentinels - 1),
        }
        tables = [s.table("MASTER", self.name) for s in self.sentinels]
        return all(known.items() <= table.items() for table in tables)

    def master(self) -> Standalone:
        """The primary, as most of the sentinels that answer name it.

        Raises:
            EmbeddedServerError: They don't agree within 15 s.
        """
        found: list[Standalone] = []

        def agreed() -> bool:
            named = self._named()
            found[:] = [
                server
                for server in self.servers
                if named.count(server.port) * 2 > len(named)
            ]
            return bool(found)

        await_that(agreed, "most sentinels name the same primary")
        return found[0]

    def _named(self) -> list[int]:
        """The port that each sentinel names; one that is killed or paused names none."""
        ports: list[int] = []
        for sentinel in [sentinel for sentinel in self.sentinels if sentinel.alive]:
            with suppress(OSError, Said):
                ports.append(self._named_by(sentinel))
        return ports

    def _named_by(self, sentinel: Sentinel) -> int:
        place = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return int(cast("list[str]", place)[1])

    def replicas(self) -> list[Standalone]:
        """All servers but the primary, dead ones too."""
        primary = self.master()
        return [server for server in self.servers if server is not primary]

    def kill_master(self) -> Standalone:
        """End the primary as a power cut would; it can be started again."""
        primary = self.master()
        primary.kill()
        return primary

    def stop_master(self) -> Standalone:
        """Freeze the primary (SIGSTOP); ``resume`` it, and it finds itself replaced."""
        primary = self.master()
        primary.pause()
        return primary

    def failover(self, *, within_secs: float = 30.0) -> Standalone:
        """Have the sentinels move the primary, with all alive; the new one.

        Raises:
            EmbeddedServerError: That did not happen in time.
        """
        old = self.master()
        sentinel = self.sentinels[0]

        def begun() -> bool:
            # Until it names another: an order is forgotten where the one to be promoted is
            # silent for ``failover_secs``, and refused (Said, not yet) while it is obeyed.
            if self._named_by(sentinel) != old.port:
                return True
            return not sentinel.call("SENTINEL", "FAILOVER", self.name)

        await_that(begun, "a sentinel begins the failover", within_secs=within_secs)
        return self.await_new_master(old, within_secs=within_secs)

    def await_new_master(
        self, old: Standalone, *, within_secs: float = 30.0
    ) -> Standalone:
        """Wait until all sentinels name another primary than ``old``, and it is one.

        Raises:
            EmbeddedServerError: That did not happen in time.
        """
        found: list[Standalone] = []

        def moved() -> bool:
            named = set(self._named())
            found[:] = [s for s in self.servers if {s.port} == named and s is not old]
            return bool(found) and found[0].info("replication")["role"] == "master"

        what = f"the sentinels replace the primary on port {old.port}"
        try:
            await_that(moved, what, within_secs=within_secs)
        except EmbeddedServerError as error:
            msg = f"{error}; they name {self._named()}"
            raise EmbeddedServerError(msg) from error
        return found[0]
