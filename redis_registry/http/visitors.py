"""Keeps out what a browser may be made to send here by a page of another site.

A page may post to any address that its reader can reach, without being allowed to read the
answer; and one whose own name is made to lead here (DNS rebinding) may even read it. Programs send
no ``Origin``, and they name a controller by an address or by one of its names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["Visitors", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether this name or address leads to this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Visitors:
    """Judges requests by their headers.

    Args:
        names: By which the controller is known, besides ``localhost`` and all addresses;
            ``None``: by any.
    """

    def __init__(self, names: Iterable[str] | None) -> None:
        self._names = (
            None if names is None else {"localhost", *(n.lower() for n in names)}
        )
        self._knows = lru_cache(maxsize=256)(self._is_name)

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Status and reason; ``None``: welcome."""
        host = origin = b""
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        if origin and origin.rpartition(b"//")[2] != host:
            return 403, "a page of another site may not use this controller"
        if host and self._names is not None and not self._knows(host):
            shown = host[:80].decode(errors="backslashreplace")
            msg = (
                f"this controller is not known as {shown!r}: use its address, or start it with "
                "--known-as and that name"
            )
            return 421, msg
        return None

    def _is_name(self, host: bytes) -> bool:
        """Whether a ``Host`` is one of the names, or an address, whatever its port."""
        try:
            name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
        except ValueError:
            return False
        if name in (self._names or ()):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True
