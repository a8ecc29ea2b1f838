"""One real server, and replicas of it."""

from __future__ import annotations

import hashlib
import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from redis_registry.embedded import EmbeddedServer
from redis_registry.errors import EmbeddedServerError
from redis_registry.testing.link import Reply, Said, ask
from redis_registry.testing.netns import Host
from redis_registry.testing.waiting import await_that

__all__ = ["Replica", "Standalone", "userinfo"]

CALL_SECS = 2.0
_ADMIN = ("redis-registry-testing", secrets.token_hex(8))
"""Name and password of the administrator of all servers of this process that have users."""

_QUICK = {
    "repl-diskless-sync-delay": "0",
    # Else a thread of Valkey writes what it loads to disk, and is looked after once a second.
    "repl-diskless-load": "swapdb",
    "repl-ping-replica-period": "1",
}


def userinfo(password: str | None, user: str = "") -> str:
    """The part of a URL before the host: empty without a password."""
    if password is None:
        return ""
    return f"{quote(user, safe='')}:{quote(password, safe='')}@"


class Standalone(EmbeddedServer):
    """One server; a context manager, sync and async.

    Example:
        >>> with Standalone(users={"default": "off", "app": "on >secret ~rr:* +@all"}) as server:
        ...     registry = RedisModelRegistry.from_url(server.url_of("app", "secret"))

    Args:
        binary: The server to run; ``None``: :func:`redis_registry.embedded.find_server`.
        port: Port on 127.0.0.1; ``None``: a free one.
        options: More of its command line, as ``{"maxmemory": "3mb"}``; what holds spaces is
            quoted as in a shell.
        password: What everybody must give (``requirepass``); it is in :attr:`url`.
        users: ACL users by name, with their rules as in ``ACL SETUSER``. One more, of this
            class, lets it look after the server.
        on: The host of a :class:`redis_registry.testing.Network` that it runs on.

    Attributes:
        host: The address at which it listens.
        login: Name and password of that administrator; empty where nobody needs any.
        users: All ACL users.
        password: What everybody must give.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        on: Host | None = None,
    ) -> None:
        options = _QUICK | dict(options or {})
        self.host = "127.0.0.1" if on is None else on.address
        self._on = on
        self.login: tuple[str, ...] = ()
        self.users = dict(users or {})
        if password is not None:
            digest = hashlib.sha256(password.encode()).hexdigest()  # may hold spaces
            self.users["default"] = f"on #{digest} ~* &* +@all"
        if self.users:
            name, secret = self.login = _ADMIN
            self.users[name] = f"on >{secret} ~* &* +@all"
        self.password = password
        self._paused = False
        super().__init__(binary=binary, port=port, options=options)

    @property
    def url(self) -> str:
        """Where it listens, with the password that it was given."""
        return self._url(userinfo(self.password))

    def url_of(self, user: str, password: str) -> str:
        """Where it listens, as one of its users."""
        return self._url(userinfo(password, user))

    def _url(self, who: str) -> str:
        return f"redis://{who}{self.host}:{self.port}/0"

    def call(self, *words: str | int) -> Reply:
        """Send a command as an administrator; its reply as plain strings, numbers and lists.

        Raises:
            EmbeddedServerError: The server answered with an error.
            OSError: It can't be reached, or did not answer within 2 s.
        """
        login = [("AUTH", *self.login)] if self.login else []
        return ask(self._dial, *login, words)

    def info(self, section: str) -> dict[str, str]:
        """One section of ``INFO``."""
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def in_step(self) -> bool:
        """Whether it follows a primary, and has caught up with it."""
        told = self.info("replication")
        # "up" alone says that it has loaded what there was: what comes after is on its way only
        # when something of it, a ping at least, has arrived.
        return (
            told.get("master_link_status") == "up"
            and int(told.get("slave_repl_offset", "0")) > 0
        )

    def pause(self) -> None:
        """Stop it as a frozen machine would stop (SIGSTOP): connections stay, nobody answers."""
        self.signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let a paused one go on."""
        self.signal(signal.SIGCONT)
        self._paused = False

    @property
    def alive(self) -> bool:
        """Whether its process runs, and is not paused."""
        gone = self._process is None or self._process.poll() is not None
        return not gone and not self._paused

    def start(self) -> None:
        """Start it and wait until it answers; a second start after ``kill`` keeps its port.

        Raises:
            NotAvailableHere: There is no binary.
            EmbeddedServerError: It runs already, or did not come up.
        """
        super().start()
        self._paused = False

    def stop(self) -> None:
        """End it and remove its directory."""
        self.kill()  # nothing of it is kept: no reason to wait for a goodbye
        super().stop()

    def _dial(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=CALL_SECS)

    def _answers(self) -> bool:
        try:
            mine = self.info("server")["process_id"] == str(self.pid)
            return mine and self.call("PING") == "PONG"
        except Said as error:
            if str(error).startswith("LOADING"):
                return False
            msg = (
                f"port {self.port}: {error} Another server may have this port; what this one "
                "demands is said as password= or users=, not in options"
            )
            raise EmbeddedServerError(msg) from error
        except OSError:
            return False

    def _command(self, binary: str, home: Path) -> list[str]:
        command = super()._command(binary, home)
        if self._on is not None:
            options = ["--bind", self.host, "127.0.0.1", "--protected-mode", "no"]
            command = [*self._on.command(), *command, *options]
        if self.users:
            file = home / "users.acl"
            rules = [f"user {name} {rule}\n" for name, rule in self.users.items()]
            file.write_text("".join(rules))
            command += ["--aclfile", str(file)]
            user, password = self.login
            command += ["--masteruser", user, "--masterauth", password]
        return command


class Replica(Standalone):
    """A server that follows another one; started, it has caught up, after a restart too.

    Args:
        primary: Whom it follows; it must run when this one is started.
        binary: The server to run.
        options: More of its command line.
        on: The host that it runs on.
    """

    def __init__(
        self,
        primary: Standalone,
        *,
        binary: str | None = None,
        options: Mapping[str, str] | None = None,
        on: Host | None = None,
    ) -> None:
        super().__init__(binary=binary, options=options, on=on)
        self._primary: Standalone | None = primary
        self.users = dict(primary.users)
        self.login = primary.login
        self.password = primary.password

    def start(self) -> None:
        """Start it and wait until it has caught up.

        Raises:
            EmbeddedServerError: It did not come up, or can't follow its primary.
        """
        super().start()
        try:
            # By order, for as an option it would be followed with its next cron: a second later.
            if self._primary is not None:
                self.follow(self._primary)
        except EmbeddedServerError:
            self.stop()
            raise

    def promote(self) -> None:
        """Make it a primary, by hand; it stays one when it is started again."""
        self._primary = None
        self.call("REPLICAOF", "NO", "ONE")

    def follow(self, primary: Standalone) -> None:
        """Have it follow another primary, and wait until it has caught up."""
        self._primary = primary
        self.call("REPLICAOF", primary.host, primary.port)
        what = f"the replica on port {self.port} has caught up with port {primary.port}"
        await_that(self.in_step, what)
