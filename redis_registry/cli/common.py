"""What the commands share: common options, and how errors are told."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from redis_registry.cli.logs import set_up_logs
from redis_registry.errors import (
    AgentError,
    ConfigurationError,
    InvalidInstance,
    InvalidOverride,
    RegistryError,
)
from redis_registry.settings import RegistrySettings
from redis_registry.sync_registry import SyncModelRegistry

__all__ = [
    "NAMESPACE",
    "URL",
    "LogFormat",
    "LogLevel",
    "Namespace",
    "Url",
    "log_as_asked",
    "place",
    "reading",
    "told",
]

URL: str = RegistrySettings.model_fields["url"].default
NAMESPACE: str = RegistrySettings.model_fields["namespace"].default

Url = Annotated[
    str,
    typer.Option(
        envvar="REDIS_REGISTRY_URL",
        help="Redis or Valkey: redis://, rediss://, unix://, valkey://.",
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        envvar="REDIS_REGISTRY_NAMESPACE",
        help="Registries of different namespaces don't see each other.",
    ),
]
LogFormat = Annotated[
    str, typer.Option(envvar="REDIS_REGISTRY_LOG_FORMAT", help="console or json.")
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar="REDIS_REGISTRY_LOG_LEVEL", help="debug, info, warning or error."
    ),
]


def log_as_asked(log_format: str, log_level: str) -> None:
    """Set up the logs.

    Raises:
        typer.BadParameter: There is no such format or level.
    """
    if log_format not in ("console", "json"):
        raise typer.BadParameter("console or json", param_hint="--log-format")
    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(
            "debug, info, warning or error", param_hint="--log-level"
        )
    set_up_logs("json" if log_format == "json" else "console", log_level)


def place(address: str | None) -> tuple[str | None, int | None]:
    """``HOST``, ``HOST:PORT`` or ``[IPv6]:PORT``."""
    if address is None:
        return None, None
    host, colon, port = address.rpartition(":")
    if bare := _bare(address):
        return bare, None
    if not colon or not port.isdecimal() or (":" in host and host[0] != "["):
        return address, None
    return _bare(host) or host or None, int(port)


def _bare(host: str) -> str:
    """An IPv6 address without its brackets; empty: it is something else, as a pattern ``[ab]``."""
    inner = host[1:-1]
    return inner if host == f"[{inner}]" and ":" in inner else ""


@contextmanager
def told() -> Generator[None]:
    """Errors of ours in one line: 2 for a wrong option, an agent's own code, 1 for the rest."""
    try:
        yield
    except RegistryError as error:
        typer.echo(f"redis-registry: {error}", err=True)
        bad_input = ConfigurationError | InvalidInstance | InvalidOverride
        code = 2 if isinstance(error, bad_input) else 1
        if isinstance(error, AgentError):
            code = error.exit_code
        raise typer.Exit(code) from error


@contextmanager
def reading(url: str, namespace: str) -> Generator[SyncModelRegistry]:
    """A registry to look into; its errors in one line, its warnings not at all."""
    logging.getLogger("redis_registry").addHandler(logging.NullHandler())
    with told(), SyncModelRegistry.from_url(url, namespace=namespace) as registry:
        yield registry
