"""A network of hosts with links that break: Linux network namespaces, for root only."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from redis_registry.embedded import die_with
from redis_registry.errors import EmbeddedServerError, NotAvailableHere
from redis_registry.testing.entering import Entering
from redis_registry.testing.waiting import await_that

__all__ = ["Host", "Network", "in_turn"]

_NOBODY = "02:00:00:00:00:00"  # a hardware address that none of them has
_TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}


@dataclass(frozen=True)
class Host:
    """One host of a network.

    Attributes:
        address: Its IPv4 address; the test process reaches it too.
        pid: The process that keeps its namespace.
    """

    address: str
    pid: int

    def command(self, *words: str) -> list[str]:
        """The command line that runs a program on this host."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]


class Network(Entering):
    """Hosts that reach each other until a link is broken; a context manager.

    Nothing of it is seen by others of this machine but one interface, in 198.18.0.0/15, by which
    the test process reaches every host, broken links or not. All of it ends with the test.

    Example:
        >>> with Network(3) as network, SentinelSet(hosts=network.hosts) as sentinels:
        ...     network.cut(network.hosts[0])  # the primary and one sentinel are alone now

    Args:
        hosts: How many.

    Attributes:
        hosts: They.
    """

    def __init__(self, hosts: int = 3) -> None:
        self._count = hosts
        self.hosts: list[Host] = []
        self._parted: set[tuple[Host, Host]] = set()

    def _enter(self) -> None:
        _check()
        self._parted.clear()
        stack = self._stack
        base, leg = _unused_base(), f"rr{secrets.token_hex(5)}"
        switch = Host("", _namespace(stack))
        _ip(switch, "link add br0 type bridge", "link set br0 up")
        self.hosts = [
            Host(f"{base}.{number + 1}", _namespace(stack))
            for number in range(self._count)
        ]
        for number, host in enumerate(self.hosts):
            port = f"port{number}"
            ends = f"netns {switch.pid} type veth peer name eth0 netns {host.pid}"
            _ip(None, f"link add {port} {ends}")
            _ip(switch, f"link set {port} master br0 up")
            _ip(host, "link set lo up", *_up("eth0", host.address))
        _ip(None, f"link add {leg} type veth peer name uplink netns {switch.pid}")
        stack.callback(_ip, None, f"link del {leg}")
        _ip(switch, "link set uplink master br0 up")
        _ip(None, *_up(leg, f"{base}.254"))

    def part(self, one: Host, other: Host) -> None:
        """Break the link between two hosts: what either sends to the other is lost, unsaid."""
        for here, there in ((one, other), (other, one)):
            lost = (
                f"neigh replace {there.address} lladdr {_NOBODY} dev eth0 nud permanent"
            )
            _ip(here, lost)
            self._parted.add((here, there))

    def cut(self, host: Host) -> None:
        """Break the links between a host and all others."""
        for other in self.hosts:
            if other is not host:
                self.part(host, other)

    def heal(self) -> None:
        """Mend all links."""
        for here, there in self._parted:
            _ip(here, f"neigh del {there.address} dev eth0")
        self._parted.clear()


def in_turn(hosts: Sequence[Host], number: int) -> Host | None:
    """The host of the so-many-th server; ``None``: this machine itself."""
    return hosts[number % len(hosts)] if hosts else None


def _up(name: str, address: str) -> list[str]:
    return [f"addr add {address}/24 dev {name}", f"link set {name} up"]


def _check() -> None:
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            msg = f"a network of hosts needs {tool}: apt-get install {package}"
            raise NotAvailableHere(msg)
    if os.geteuid() != 0:
        msg = "a network of hosts needs root: run these tests as root (in a container, say)"
        raise NotAvailableHere(msg)


def _unused_base() -> str:
    """The first three numbers of a network that no interface of this machine is in."""
    routes = Path("/proc/net/fib_trie").read_text()
    bases = [f"198.{two}.{three}" for two in (18, 19) for three in range(256)]
    return secrets.choice([base for base in bases if f" {base}." not in routes])


def _namespace(stack: ExitStack) -> int:
    """A process that does nothing in a network namespace of its own; its pid.

    The namespace ends with the last process in it, so nothing has to be removed.
    """
    keeper = subprocess.Popen(
        ["unshare", "--net", "sleep", "infinity"],  # noqa: S607  found on PATH by _check
        stderr=subprocess.PIPE,
        preexec_fn=die_with(os.getpid(), signal.SIGKILL),  # noqa: PLW1509  only calls prctl
        process_group=0,
    )
    stack.callback(_end, keeper)
    own, name = _namespace_of("self"), str(keeper.pid)
    await_that(
        lambda: keeper.poll() is not None or _namespace_of(name) != own, "a namespace"
    )
    if keeper.poll() is not None and keeper.stderr is not None:
        why = keeper.stderr.read().decode().strip()
        msg = f"a network of hosts needs the right to make namespaces, as --privileged gives: {why}"
        raise NotAvailableHere(msg)
    return keeper.pid


def _namespace_of(pid: str) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def _end(keeper: subprocess.Popen[bytes]) -> None:
    keeper.kill()
    keeper.communicate()


def _ip(host: Host | None, *lines: str) -> None:
    """Have ``ip`` do things on a host; ``None``: where the test is."""
    command = ["ip", "-batch", "-"]
    done = subprocess.run(  # noqa: S603  our own command line
        host.command(*command) if host else command,
        input="\n".join([*lines, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EmbeddedServerError(f"ip {'; '.join(lines)}: {done.stderr.strip()}")
