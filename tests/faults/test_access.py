"""Servers that refuse us: a replica, a password, a right, a certificate. Told at once, once, and no secret with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from redis_registry import (
    AccessDenied,
    LeaseLost,
    RedisModelRegistry,
    RegistryError,
    RegistrySettings,
    RegistryUnavailable,
    SyncModelRegistry,
)
from redis_registry.testing import Certificates, Replica, Secured, Standalone
from tests.conftest import SLOW, Bench, Server, _binary
from tests.faults.test_damage import WRITES, fill
from tests.helpers import connect, instance, until
from tests.places import Place
from tests.promises.test_faults import COMMANDS

pytestmark = pytest.mark.standalone("the one server is stopped, filled, or has users")

SECRET = "p3rfectly-s3cret"
DEADLINE_SECS = 0.5


# --- a replica ------------------------------------------------------------------------------------


def test_a_replica_addressed_by_mistake_is_named_in_time(
    own_server: Standalone,
) -> None:
    """Both faces; the call ends at its deadline, for a replica may be about to be promoted."""
    with Replica(own_server, binary=own_server._binary) as replica:
        raw = connect(replica.url)
        raw.config_resetstat()
        options: dict[str, Any] = SLOW | {"operation_timeout_secs": DEADLINE_SECS}

        async def ask() -> None:
            async with RedisModelRegistry.from_url(
                replica.url, run_checker=False, **options
            ) as registry:
                await registry.status()

        def ask_sync() -> None:
            with SyncModelRegistry.from_url(replica.url, **options) as registry:
                registry.register_instance(instance())

        for call in (lambda: asyncio.run(ask()), ask_sync):
            start = time.monotonic()
            with pytest.raises(RegistryUnavailable, match="is a replica and takes no"):
                call()
            assert time.monotonic() - start < DEADLINE_SECS + 0.3
        tried = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert tried < 60, "with growing pauses"
        raw.close()


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_what_is_no_redis_is_told_at_once(face: str, no_tasks_left: None) -> None:
    def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        error = await refused(f"redis://127.0.0.1:{port}", face)
    assert f"what answers at 127.0.0.1:{port} is no Redis: check host and port" in str(
        error
    )


# --- passwords and rights -------------------------------------------------------------------------


def denials(raw: Any) -> int:
    return sum(entry["count"] for entry in raw.acl_log())


NOT_OF_SCRIPTS = {"+ping", "+hello", "+select", "+xread", "+client|setname"}


def user(raw: Any, password: str = SECRET, commands: list[str] | None = None) -> None:
    """The user that the guide names."""
    raw.acl_setuser(
        "app",
        enabled=True,
        reset=True,
        reset_passwords=True,
        passwords=[f"+{password}"],
        keys=["rr:*"],
        commands=commands or COMMANDS,
    )


def url_of(server: Standalone, password: str = SECRET) -> str:
    return server.url.replace("//", f"//app:{password}@")


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_a_wrong_password_is_told_at_once_and_tried_once(
    own_server: Standalone, face: str, no_tasks_left: None
) -> None:
    raw = connect(own_server.url)
    user(raw)
    url = url_of(own_server, "wr0ng")
    start = time.monotonic()
    error = await refused(url, face)
    assert time.monotonic() - start < 1
    assert denials(raw) == 1
    assert isinstance(error, AccessDenied)
    assert "wr0ng" not in str(error)
    raw.close()


async def test_whatever_right_is_missing_each_call_is_denied_once_and_all_is_mended_later(
    own_server: Standalone, no_tasks_left: None
) -> None:
    """Denied in the middle of a script, which does not roll back: given the right, all agrees again."""
    raw = connect(own_server.url)
    user(raw)
    async with RedisModelRegistry.from_url(
        url_of(own_server), run_checker=False, **SLOW
    ) as registry:
        bench = Bench(registry, Server("own", Place(own_server.url, [own_server]), raw))
        needed = 0
        for command in COMMANDS:
            if command in NOT_OF_SCRIPTS:
                continue
            term = await fill(bench)
            raw.acl_log_reset()
            raw.acl_setuser("app", enabled=True, commands=["-" + command[1:]])
            refused = 0
            for write in WRITES.values():
                try:
                    await write(bench, term)
                except AccessDenied:
                    refused += 1
                except LeaseLost:
                    pass  # by a sweep that was half denied
            # None twice; but some scripts look at a key that may be of another type, and go on.
            assert refused <= denials(raw) <= refused + 4, command
            needed += bool(refused)
            raw.acl_setuser("app", enabled=True, commands=[command])
            await settle(bench)
            # What was denied half-way has told its event, and tells it again.
            raw.delete(bench.store.key("events"))
            bench.store.check()
        assert needed > 20
    raw.close()


async def settle(bench: Bench) -> None:
    """What workers and the checker do in the time after."""
    checker = bench.checkers[0]
    for item in (instance(1, incarnation="9"), instance(2, incarnation="9")):
        await bench.registry.register_instance(item)
    for _ in range(3):
        checker._mending.clear()
        checker._reclaim_at.clear()
        await checker._sweep(0)
    bench.store.age(61, away=False)
    await checker._sweep(0)


async def last_beat(registry: RedisModelRegistry) -> datetime:
    """Of the one that is announced."""
    found = await registry.get_all_instances("glm@llm")
    (last,) = [item.last_heartbeat for item in found if item.port == 2]
    assert last is not None
    return last


class Rotating(CredentialProvider):
    """Gives the password of the day."""

    def __init__(self) -> None:
        self.password = SECRET

    def get_credentials(self) -> tuple[str, str]:
        return "app", self.password


async def test_a_password_may_be_rotated_while_we_are_connected(
    own_server: Standalone, no_tasks_left: None
) -> None:
    """Open connections stay; new ones need the new password, which a provider has."""
    raw = connect(own_server.url)
    user(raw)
    provider = Rotating()
    client = redis.asyncio.Redis(
        host=own_server.host,
        port=own_server.port,
        credential_provider=provider,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,  # the user may not tell it
    )
    old_url, options = url_of(own_server), dict[str, Any](run_checker=False, **SLOW)
    async with (
        RedisModelRegistry(client, **options) as providing,
        RedisModelRegistry.from_url(old_url, **options) as stubborn,
        providing.announce(instance(2), interval_secs=0.1) as announced,
    ):
        assert await announced.ready()
        for registry in (providing, stubborn):
            await registry.send_heartbeat(instance(1))
        user(raw, "n3w-and-secret")
        provider.password = "n3w-and-secret"
        for registry in (providing, stubborn):
            assert await registry.send_heartbeat(instance(1)), "still connected"
        raw.acl_log_reset()
        raw.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(AccessDenied):
            await stubborn.send_heartbeat(instance(1))
        assert denials(raw) == 1

        async def beats() -> bool:
            try:
                return await providing.send_heartbeat(instance(1))
            except RegistryUnavailable:
                return False  # a connection that was killed, and whose driver gave up

        await until(beats, "the new password is taken")
        before = await last_beat(providing)

        async def announces() -> bool:
            return await last_beat(providing) > before

        await until(announces, "the sender's thread too")
        assert denials(raw) == 1
    await client.aclose()
    raw.close()


# --- TLS ------------------------------------------------------------------------------------------

Variant = Callable[[Secured, Path], str]


def no_certificate(server: Secured, _home: Path) -> str:
    return server.url_of("app", SECRET).partition("&")[0]


def of_a_rogue_authority(server: Secured, home: Path) -> str:
    """Its client's certificate is of another authority; it trusts the right one."""
    rogue = Certificates.make(home / "rogue")
    (home / "rogue" / "ca.crt").write_bytes(server.certificates.authority.read_bytes())
    return server.url_with(rogue, f"app:{SECRET}@")


def trusting_another(server: Secured, home: Path) -> str:
    """It trusts another authority than the server's."""
    mixed = home / "mixed"
    Certificates.make(mixed)
    for name in ("client.crt", "client.key"):
        (mixed / name).write_bytes((server.certificates.home / name).read_bytes())
    return server.url_with(Certificates(mixed), f"app:{SECRET}@")


def plain(server: Secured, _home: Path) -> str:
    return f"redis://app:{SECRET}@{server.host}:{server.port}/0"


def for_another_name(server: Secured, _home: Path) -> str:
    return server.url_of("app", SECRET)


def expired(server: Secured, _home: Path) -> str:
    return server.url_of("app", SECRET)


VARIANTS: list[tuple[Variant, dict[str, Any] | None]] = [
    (no_certificate, None),
    (of_a_rogue_authority, None),
    (trusting_another, None),
    (plain, None),
    (for_another_name, {"names": ("DNS:elsewhere",)}),
    (expired, {"days": -1}),
]


@pytest.mark.parametrize("face", ["async", "sync"])
@pytest.mark.parametrize(
    ("variant", "made"), VARIANTS, ids=lambda v: getattr(v, "__name__", "")
)
async def test_whatever_is_wrong_with_tls_it_is_refused_and_no_secret_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    variant: Variant,
    made: dict[str, Any] | None,
    face: str,
    no_tasks_left: None,
) -> None:
    caplog.set_level(logging.DEBUG)
    given = Certificates.make(tmp_path / "own", **made) if made else None
    users = {"default": "off", "app": f"on >{SECRET} ~rr:* +@all"}
    with Secured(binary=_binary("redis7"), certificates=given, users=users) as server:
        good = server.url_of("app", SECRET)
        url = variant(server, tmp_path)
        error = await refused(url, face)
        assert isinstance(error, RegistryUnavailable)
        told = [str(error), repr(error), str(error.__cause__), caplog.text]
        assert not [text for text in told if SECRET in text]
        assert int(server.info("commandstats").get("cmdstat_eval", "0") != "0") == 0
        if made is None:
            assert await refused(good, face) is None, "the right ones get in"


async def refused(url: str, face: str) -> RegistryError | None:
    """What a first call is answered with."""
    call: Callable[[], Awaitable[object]]
    async with RedisModelRegistry.from_url(
        url, run_checker=False, operation_timeout_secs=DEADLINE_SECS
    ) as registry:
        with SyncModelRegistry.from_url(
            url, operation_timeout_secs=DEADLINE_SECS
        ) as other:
            call = registry.status
            if face == "sync":

                def call() -> Awaitable[object]:
                    return asyncio.to_thread(other.status)

            try:
                await call()
            except RegistryError as error:
                return error
    return None


def test_no_repr_shows_a_password() -> None:
    for url in (
        f"redis://app:{SECRET}@h:1/0",
        f"redis+sentinel://:{SECRET}@h:1/m?sentinel_password={SECRET}",
        f"redis+cluster://app:{SECRET}@h:1",
    ):
        settings = RegistrySettings(url=url)
        registry = RedisModelRegistry(settings=settings)
        shown = [settings, registry, registry._executor, registry._sync_executor]
        assert not [item for item in map(repr, shown) if SECRET in item]
        assert SECRET not in str(settings)
        assert "h:1" in repr(settings)
