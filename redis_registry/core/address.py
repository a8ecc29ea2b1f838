"""Addresses that others can reach: found, and checked before they are announced."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from redis_registry.errors import InvalidInstance
from redis_registry.model import ModelInstance

__all__ = ["check_address", "own_address"]

_SOMEWHERE = "192.0.2.1"  # RFC 5737: an address of nobody; nothing is sent to it


def own_address(towards: str = _SOMEWHERE) -> str:
    """The address from which this host speaks to another one: what others can reach it by.

    It asks the kernel's routing table and sends nothing.

    Args:
        towards: A host name or address, or a URL such as the registry's.

    Returns:
        An address as text; ``127.0.0.1`` where there is no way out.
    """
    host = _host_of(towards) or _SOMEWHERE
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, 9, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def check_address(instance: ModelInstance, registry_urls: Sequence[str]) -> None:
    """Refuse an address that others can't reach.

    Args:
        instance: Who is to be announced.
        registry_urls: Where the registry is. Where that is another host, the workers' clients
            are elsewhere too, and a loopback address leads them to themselves.

    Raises:
        InvalidInstance: Its host means every address, or only this machine; the message says
            which one others can reach.
    """
    host = instance.host
    remote = next((url for url in registry_urls if not _local(url)), None)
    if _is(host, "is_unspecified"):
        meaning = "is what a server binds to, not where others reach it"
    elif remote and _is_loopback(host):
        meaning = (
            "leads everybody to their own machine, and the registry is on another one"
        )
    else:
        return
    msg = (
        f"host: {instance.identity}: {host} {meaning}: announce "
        f"{own_address(remote or _SOMEWHERE)}, or say any_address=True if you mean it"
    )
    raise InvalidInstance(msg)


def _host_of(place: str) -> str | None:
    if "://" not in place:
        return place
    return urlsplit(
        place.split(",", 1)[0]
    ).hostname  # the first, where there are several


def _is(host: str, quality: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(getattr(mapped or address, quality))


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    return (
        _is(host, "is_loopback") or name == "localhost" or name.endswith(".localhost")
    )


def _local(url: str) -> bool:
    host = _host_of(url)
    return host is None or _is_loopback(host)
