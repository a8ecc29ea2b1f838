"""Where Redis is, as one URL says it: one server, a Sentinel's master, or a Cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis_registry.errors import ConfigurationError

__all__ = ["Host", "Topology"]

_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
_KINDS: dict[str, Literal["server", "sentinel", "cluster"]] = {
    "": "server",
    "sentinel": "sentinel",
    "cluster": "cluster",
}
_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_UNREADABLE = (
    "not a Redis URL: a host or port can't be read (scheme://user:password@host:port/0). In user, "
    "password and names write / as %2F, ? as %3F, # as %23, [ as %5B and @ as %40"
)
_OF_SENTINELS = ("sentinel_username", "sentinel_password")
_OPTIONS = (
    "client_name", "db", "health_check_interval", "password", "socket_connect_timeout",
    "socket_keepalive", "username",
)  # fmt: skip
_OF_TLS = (
    "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile",
    "ssl_check_hostname", "ssl_ciphers", "ssl_exclude_verify_flags", "ssl_include_verify_flags",
    "ssl_keyfile", "ssl_min_version", "ssl_password",
)  # fmt: skip
"""The options that both drivers know, and that are not ours to decide (store/driver/client.py)."""

Host = tuple[str, int]
"""Name or address, and port."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Where Redis is, and how to talk to each of its servers.

    Attributes:
        kind: ``server``, ``sentinel`` or ``cluster``.
        hosts: The server; or Sentinels; or some nodes of a Cluster, from which the others are
            learned.
        service: Sentinel's name of the master.
        url: For the driver: user, password, TLS, database, options. Only with ``server`` the
            host in it counts.
        credentials: User and password of the Sentinels, by the driver's names.
    """

    kind: Literal["server", "sentinel", "cluster"]
    hosts: tuple[Host, ...]
    service: str
    url: str = field(repr=False)
    credentials: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, url: str) -> Topology:
        """Read a URL.

        ``redis://``, ``rediss://`` (TLS), ``unix://``, ``valkey://`` and ``valkeys://`` name one
        server; with ``+sentinel`` or ``+cluster`` after the scheme several hosts may be given:
        ``redis+sentinel://user:password@host:26379,host:26379/service/0``,
        ``redis+cluster://host:6379,host:6379``.

        Raises:
            ConfigurationError: Not a URL this release can connect to; the message says why.
        """
        try:
            return cls._read(url.strip())
        except ConfigurationError:
            raise
        except ValueError:  # of urlsplit, or a port; its text may show a password
            raise ConfigurationError(_UNREADABLE) from None

    @classmethod
    def _read(cls, url: str) -> Topology:
        parts = urlsplit(url)
        scheme, plus, suffix = parts.scheme.partition("+")
        driver, kind = _SCHEMES.get(scheme), _KINDS.get(suffix)
        if driver is None or kind is None or (plus and scheme == "unix"):
            raise ConfigurationError(_unknown(parts.scheme))
        _check_login(parts)
        _check_options(parts, tls=driver == "rediss", sentinels=kind == "sentinel")
        after = url[len(scheme) :]
        if kind == "server" and not after.startswith("://"):
            raise ConfigurationError(_UNREADABLE)
        if driver == "unix":
            return cls("server", (), "", driver + after)
        login, at, names = parts.netloc.rpartition("@")
        hosts = tuple(_host(name, _PORTS[kind]) for name in names.split(",") if name)
        _check_number(scheme, kind, len(hosts))
        path = [part for part in parts.path.split("/") if part]
        if kind == "server":
            _check_database(kind, path)
            hosts = hosts or (("localhost", _PORTS[kind]),)
            return cls(kind, hosts, "", driver + after)
        service = _service(parts.scheme, path) if kind == "sentinel" else ""
        _check_database(kind, path)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        own = tuple(
            (name.removeprefix("sentinel_"), options.pop(name))
            for name in _OF_SENTINELS
            if name in options
        )
        query = f"?{urlencode(options)}" if options else ""
        host, port = hosts[0]
        named = f"[{host}]" if ":" in host else host
        target = f"{driver}://{login}{at}{named}:{port}/{'/'.join(path)}{query}"
        return cls(kind, hosts, service, target, own)

    @property
    def where(self) -> str:
        """It in words, for messages; without user and password."""
        if not self.hosts:
            return urlsplit(self.url).path or "?"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return {
            "server": hosts,
            "sentinel": f"{self.service} of the Sentinels {hosts}",
            "cluster": f"the Cluster {hosts}",
        }[self.kind]


def _check_login(parts: SplitResult) -> None:
    """Refuse a password that is read as something else, before a message shows that."""
    after = parts.path, parts.query.partition("=")[0], parts.fragment
    if "@" not in parts.netloc and any("@" in part for part in after):
        raise ConfigurationError(_UNREADABLE)


def _check_options(parts: SplitResult, *, tls: bool, sentinels: bool) -> None:
    """Refuse options that nobody knows, and those that are not the URL's to decide."""
    possible = (
        *_OPTIONS,
        *(_OF_TLS if tls else ()),
        *(_OF_SENTINELS if sentinels else ()),
    )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name in possible:
            continue
        if "@" in parts.query:  # then this may be a part of the password
            raise ConfigurationError(_UNREADABLE)
        msg = (
            f"{name!r} is no option of a {parts.scheme}:// URL (ssl_… need TLS, sentinel_… Sentinels); "
            f"there are {', '.join(sorted(possible))}. Other timeouts and max_connections are settings"
        )
        raise ConfigurationError(msg)


def _unknown(scheme: str) -> str:
    known = ", ".join(f"{name}://" for name in _SCHEMES)
    return (
        f"can't connect to {repr(scheme) if scheme else 'such'} URLs; use one of {known}, or redis+sentinel://, "
        "redis+cluster:// (rediss+… with TLS)"
    )


def _host(text: str, default_port: int) -> Host:
    """``host``, ``host:port`` or ``[address]:port``."""
    parts = urlsplit(f"//{text}")
    if parts.hostname is None:
        msg = f"no host in {text!r}"
        raise ConfigurationError(msg)
    return parts.hostname, parts.port or default_port


def _check_number(scheme: str, kind: str, hosts: int) -> None:
    if kind == "server" and hosts > 1:
        msg = (
            f"{scheme}:// names one server, and here are {hosts} hosts: use "
            f"{scheme}+sentinel:// or {scheme}+cluster://"
        )
        raise ConfigurationError(msg)
    if kind != "server" and not hosts:
        msg = f"{scheme}+{kind}://: name at least one host"
        raise ConfigurationError(msg)


def _service(scheme: str, path: list[str]) -> str:
    if not path:
        msg = (
            "which master? Give Sentinel's name of it after the hosts: "
            f"{scheme}://host:26379/mymaster"
        )
        raise ConfigurationError(msg)
    return unquote(path.pop(0))


def _check_database(kind: str, path: list[str]) -> None:
    if len(path) > 1 or (path and not path[0].isdecimal()):
        msg = f"{'/'.join(path)!r} is no number of a database"
        raise ConfigurationError(msg)
    if kind == "cluster" and path and int(path[0]):
        msg = f"a Cluster has only database 0, not {path[0]}: use another namespace or prefix"
        raise ConfigurationError(msg)
