"""Is the server well? Asked by HTTP, by a TCP connection, or by a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import urllib3

from redis_registry.errors import ConfigurationError

__all__ = ["Fault", "Probe", "host_of", "probe_of", "read_page"]

MOST_BYTES = 8 * 1024 * 1024
"""Of a page that are read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a probe is not green.

    Attributes:
        why: In plain words.
        hard: Nobody listens: there is nothing to be patient about.
    """

    why: str
    hard: bool = False


Probe = Callable[[], Awaitable[Fault | None]]
"""Asks once; ``None``: well."""


def probe_of(text: str, timeout_secs: float) -> Probe:
    """The probe that a text describes.

    Args:
        text: ``http://…``, ``https://…`` (any answer below 400 is green), ``tcp://host:port``, or
            a command (exit code 0 is green).
        timeout_secs: Longest wait for one answer.

    Raises:
        ConfigurationError: It describes none.
    """
    if text.startswith(("http://", "https://")):
        _place(text, default_port=80)
        return lambda: _http(text, timeout_secs)
    if text.startswith("tcp://"):
        host, port = _place(text, default_port=None)
        return lambda: _tcp(host, port, timeout_secs)
    try:
        command = shlex.split(text)
    except ValueError as error:
        msg = f"--health: {text!r} is no command: {error}"
        raise ConfigurationError(msg) from error
    if not "".join(command):
        msg = "--health: give http://host:port/path, tcp://host:port or a command"
        raise ConfigurationError(msg)
    return lambda: _command(command, timeout_secs)


def host_of(text: str) -> str | None:
    """The host that a probe connects to; ``None``: a command."""
    return urlsplit(text).hostname if "://" in text else None


def _place(url: str, *, default_port: int | None) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port or default_port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        msg = f"--health: {url!r} names no host and port: http://host:port/path or tcp://host:port"
        raise ConfigurationError(msg)
    return parts.hostname, port


async def read_page(url: str, timeout_secs: float) -> tuple[int, bytes]:
    """Status and body of a page; redirects are not followed, proxies not used.

    Raises:
        urllib3.exceptions.HTTPError: There is no answer.
    """

    def get() -> tuple[int, bytes]:
        reply = urllib3.request(
            "GET",
            url,
            retries=False,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(total=timeout_secs),
        )
        try:
            return reply.status, reply.read(MOST_BYTES)
        finally:
            reply.close()

    return await asyncio.to_thread(get)


async def _http(url: str, secs: float) -> Fault | None:
    try:
        status, _ = await read_page(url, secs)
    except urllib3.exceptions.HTTPError as error:
        if isinstance(error.__cause__, OSError):
            return _refused(url, error.__cause__)
        return Fault(f"{url}: {type(error).__name__}")
    green = status < HTTPStatus.BAD_REQUEST
    return None if green else Fault(f"{url} answers {status}")


async def _tcp(host: str, port: int, secs: float) -> Fault | None:
    try:
        async with asyncio.timeout(secs):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Fault(f"no connection to {host}:{port} within {secs:g} s")
    except OSError as error:
        return _refused(f"{host}:{port}", error)
    writer.close()
    return None


def _refused(place: str, error: OSError) -> Fault:
    # The address is in the message anyhow; of several addresses asyncio tells each.
    hard = isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower()
    why = error.strerror or str(error)
    if hard and error.errno:  # asyncio's own text is about its call
        why = os.strerror(error.errno)
    return Fault(f"{place}: {why}", hard=hard)


async def _command(command: list[str], secs: float) -> Fault | None:
    quiet: dict[str, Any] = {"stdin": asyncio.subprocess.DEVNULL, "process_group": 0}
    try:
        process = await asyncio.create_subprocess_exec(*command, **quiet)
    except OSError as error:
        return Fault(f"{command[0]}: {error.strerror}")
    try:
        async with asyncio.timeout(secs):
            code = await process.wait()
    except TimeoutError:
        return Fault(f"{command[0]}: not done within {secs:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return None if code == 0 else Fault(f"{command[0]} ends with {code}")
