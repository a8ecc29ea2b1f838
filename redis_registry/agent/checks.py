"""What can be known before anything is started or registered; the agent's exit codes."""

from __future__ import annotations

import asyncio
import errno
import socket

from redis_registry.errors import AgentError

__all__ = [
    "NOT_HEALTHY",
    "NO_HOST",
    "PORT_TAKEN",
    "SUPERSEDED",
    "check_host",
    "check_port",
]

NO_HOST, NOT_HEALTHY, PORT_TAKEN, SUPERSEDED = 68, 69, 73, 75
"""Exit codes in the manner of BSD's ``sysexits``: no host, unavailable, can't create, try later."""


async def check_host(host: str | None, where: str) -> None:
    """Resolve a host.

    Args:
        host: Its name or address; ``None``: nothing to do.
        where: What gave it, for the message.

    Raises:
        AgentError: Nobody has that name.
    """
    if host is None:
        return
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        msg = (
            f"{where}: can't resolve {host!r}: {told}; look at its spelling, or at DNS"
        )
        raise AgentError(msg, NO_HOST) from error


def check_port(port: int) -> None:
    """Nobody listens on the port that the command is to listen on.

    Raises:
        AgentError: Somebody does.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("", port))
        except (
            OSError
        ) as error:  # others, as a port of root's, are the server's to tell
            if error.errno == errno.EADDRINUSE:
                msg = (
                    f"--port: {port} is in use; end what listens there, choose another one, or adopt "
                    "the running server: the same options without a command"
                )
                raise AgentError(msg, PORT_TAKEN) from error
