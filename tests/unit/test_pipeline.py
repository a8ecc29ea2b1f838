"""The pipelined connection: order, losses and silence; and life without hiredis."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from redis_registry import RedisModelRegistry, RegistryClosed, RegistryUnavailable
from redis_registry.embedded import EmbeddedServer
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import AsyncClient, async_client
from redis_registry.store.faults import DRIVER_ERRORS
from tests.conftest import SLOW, Server
from tests.helpers import instance, instances, until

pytestmark = [
    pytest.mark.usefixtures("no_tasks_left"),
    pytest.mark.standalone("it is about connections to one"),
]


def _client(url: str, **options: Any) -> AsyncClient:
    return async_client(RegistrySettings.of(url=url, **options))


async def test_all_calls_share_one_connection_and_get_their_own_answers(
    server: Server,
) -> None:
    client = _client(server.url)
    texts = [str(number) for number in range(500)]
    answers = await asyncio.gather(*(client.execute_command("ECHO", t) for t in texts))
    assert [answer.decode() for answer in answers] == texts
    assert len(server.store.connections()) == 1
    await client.aclose()


async def test_an_error_is_the_callers_whose_command_it_was(server: Server) -> None:
    client = _client(server.url)
    fine, wrong, after = await asyncio.gather(
        *(client.execute_command(*words) for words in (["PING"], ["NOSUCH"], ["PING"])),
        return_exceptions=True,
    )
    assert (fine, after) == (b"PONG", b"PONG")
    assert isinstance(wrong, DRIVER_ERRORS)
    await client.aclose()


async def test_a_lost_connection_fails_those_who_wait_and_is_made_anew(
    server: Server,
) -> None:
    client = _client(server.url)
    await client.execute_command("PING")
    waiting = [
        asyncio.ensure_future(client.execute_command("BLPOP", "nothing", 30))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    server.raw.client_kill_filter(skipme=True)
    for failed in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(failed, DRIVER_ERRORS), failed
    assert await client.execute_command("PING") == b"PONG"
    await client.aclose()


async def test_a_silent_connection_is_left_by_who_gives_up(server: Server) -> None:
    client = _client(server.url, socket_timeout_secs=0.2)
    await client.execute_command("PING")
    server.process.signal(signal.SIGSTOP)
    try:
        beside = asyncio.ensure_future(client.execute_command("PING"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.execute_command("PING")
        (failed,) = await asyncio.gather(beside, return_exceptions=True)
        assert isinstance(failed, DRIVER_ERRORS), failed
    finally:
        server.process.signal(signal.SIGCONT)
    assert await client.execute_command("PING") == b"PONG"
    await client.aclose()


async def test_giving_up_one_call_leaves_a_talking_connection_alone(
    server: Server,
) -> None:
    client = _client(server.url)
    before = await client.execute_command("CLIENT", "ID")
    given_up = asyncio.ensure_future(client.execute_command("ECHO", "nobody's"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await client.execute_command("ECHO", "mine") == b"mine"
    assert await client.execute_command("CLIENT", "ID") == before
    await client.aclose()


async def test_a_peer_that_talks_nonsense_is_an_error_in_time() -> None:
    peers: list[asyncio.Task[Any] | None] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(asyncio.current_task())
        while words := await reader.readline():
            if b"SETNAME" in words.upper():
                writer.write(b"+OK\r\n")
            elif b"EVAL" in words:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(peer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        registry = RedisModelRegistry.from_url(
            f"redis://127.0.0.1:{port}/0",
            run_checker=False,
            operation_timeout_secs=0.5,
            **SLOW,
        )
        with pytest.raises(RegistryUnavailable):
            await registry.get_all_instances("glm@llm")
        await registry.aclose()
        await asyncio.gather(*filter(None, peers))


async def test_it_speaks_over_a_unix_socket(tmp_path: Path) -> None:
    place = tmp_path / "redis.sock"
    with EmbeddedServer(options={"unixsocket": str(place)}):
        async with RedisModelRegistry.from_url(f"unix://{place}", **SLOW) as registry:
            assert await registry.send_heartbeat(instance())


async def test_without_hiredis_each_call_has_a_connection_of_its_own(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis_registry.store.driver.pipeline", None)
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, max_connections=4, **SLOW
    ) as registry:
        async with asyncio.TaskGroup() as group:
            for item in instances(50):
                group.create_task(registry.register_instance(item))
        assert len(await registry.get_all_instances("glm@llm")) == 50
        assert 1 < len(server.store.connections()) <= 4

        async def gone() -> bool:
            return not server.store.connections()

    await until(gone, "the connections are closed")


async def test_closing_lets_no_call_that_is_under_way_connect_again(
    server: Server,
) -> None:
    registry = RedisModelRegistry.from_url(server.url, run_checker=False, **SLOW)
    await registry.status()
    server.process.signal(signal.SIGSTOP)
    calls = [asyncio.create_task(registry.status()) for _ in range(4)]
    await asyncio.sleep(0.01)
    await registry.aclose()
    server.process.signal(signal.SIGCONT)

    for failed in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(failed, RegistryClosed), failed

    async def gone() -> bool:
        return not server.store.connections()

    await until(gone, "the connections are closed")


async def test_after_a_long_silence_one_call_given_up_does_not_cost_the_connection(
    server: Server,
) -> None:
    client = _client(server.url, socket_timeout_secs=0.2)
    before = await client.execute_command("CLIENT", "ID")
    await asyncio.sleep(0.3)
    given_up = asyncio.ensure_future(client.execute_command("ECHO", "nobody's"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await client.execute_command("CLIENT", "ID") == before
    await client.aclose()
