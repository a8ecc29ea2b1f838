"""Clients that are slow, endless, or sent by a page of another site: bounded, and others served."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import uvicorn

from redis_registry.http import app, protocol
from redis_registry.http.server import application
from redis_registry.http.visitors import is_loopback
from tests.conftest import Bench
from tests.helpers import instances, until

SECS = 0.4
MODELS = "/api/controller/models"
BODY = b'{"model_name":"m","host":"h","port":1}'


@pytest.fixture
async def port(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A replica's HTTP server with short patience, in this process."""
    monkeypatch.setattr(protocol, "HEAD_SECS", SECS)
    monkeypatch.setattr(app, "BODY_SECS", SECS)
    config = uvicorn.Config(
        application(bench.registry, names=["controller"]),
        http=protocol.OneWriteProtocol,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=1,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=500)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    serving = asyncio.create_task(server._serve([listener]))
    await until(lambda: asyncio.sleep(0, server.started), "it listens")
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving
    listener.close()


class Client:
    """One connection, byte by byte."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def drip(self, data: bytes, every_secs: float = 0.03) -> bytes:
        """Send a byte now and then until the server has had enough; what it answered."""
        answer = asyncio.create_task(self.end())
        for number in range(400):
            if answer.done():
                break
            self.writer.write(data[number % len(data) :][:1])
            await asyncio.sleep(every_secs)
        return await answer

    async def end(self) -> bytes:
        """All that comes until the server closes."""
        told = b""
        try:
            async with asyncio.timeout(20 * SECS):
                while part := await self.reader.read(65536):
                    told += part
        except ConnectionError:
            pass
        self.writer.close()
        return told


HEAD = f"POST {MODELS} HTTP/1.1\r\nhost: 127.0.0.1\r\n".encode()


async def silent(client: Client) -> bytes:
    return await client.end()


async def slow_head(client: Client) -> bytes:
    client.writer.write(HEAD + b"x-slow: ")
    return await client.drip(b"z")


async def slow_second_head(client: Client) -> bytes:
    """After a good request, so that it is no new connection."""
    client.writer.write(b"GET /api/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET /api")
    return await client.drip(b"z")


async def only_line_ends(client: Client) -> bytes:
    return await client.drip(b"\r\n")


async def slow_body(client: Client) -> bytes:
    client.writer.write(HEAD + b"content-length: 4000\r\n\r\n")
    return await client.drip(b" ")


async def body_after_an_answer(client: Client) -> bytes:
    """The answer needed no body, and it goes on coming."""
    client.writer.write(
        b"POST /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4000\r\n\r\n"
    )
    return await client.drip(b" ")


SLOW_CLIENTS: list[tuple[Callable[[Client], Awaitable[bytes]], bytes]] = [
    (silent, b""),
    (slow_head, b""),
    (slow_second_head, b"HTTP/1.1 200"),
    (only_line_ends, b""),
    (slow_body, b"HTTP/1.1 408"),
    (body_after_an_answer, b"HTTP/1.1 404"),
]


@pytest.mark.parametrize(
    ("behave", "answer"), SLOW_CLIENTS, ids=lambda v: getattr(v, "__name__", "")
)
async def test_forty_slow_clients_are_left_in_time_and_others_are_served(
    port: int,
    behave: Callable[[Client], Awaitable[bytes]],
    answer: bytes,
) -> None:
    start = time.monotonic()
    clients = [await Client.connect(port) for _ in range(40)]
    slow = asyncio.gather(*map(behave, clients))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        for _ in range(10):
            asked = time.monotonic()
            assert (await web.post(MODELS, content=BODY)).status_code == 200
            assert time.monotonic() - asked < SECS
    answers = await slow
    assert [told[: len(answer)] for told in answers] == [answer] * 40
    assert time.monotonic() - start < 10 * SECS


async def test_who_never_reads_a_long_answer_is_left(port: int, bench: Bench) -> None:
    await bench.registry.send_heartbeats(
        [i.model_copy(update={"prompt_template": "x" * 9000}) for i in instances(2000)]
    )
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {MODELS} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    client.settimeout(5)
    start = time.monotonic()
    await asyncio.sleep(4)

    def all_there_is() -> int:
        read = 0
        try:
            while part := client.recv(1 << 20):
                read += len(part)
        except ConnectionError:
            pass
        return read

    assert await asyncio.to_thread(all_there_is) < 18_000_000, "it was cut off"
    assert time.monotonic() - start < 6
    client.close()


async def test_an_endless_head_is_431(port: int) -> None:
    for endless in (b"x-long: " + b"y" * 200_000, b"x: y\r\n" * 30_000):
        client = await Client.connect(port)
        client.writer.write(HEAD)
        client.writer.write(endless)
        answer = await client.end()
        assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    # Large bodies of good requests are no heads.
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        for _ in range(3):
            long = await web.post(MODELS, content=b" " * 900_000 + BODY)
            assert long.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "Controller:80"}, 200),
        ({"host": "10.1.2.3"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "controller:80", "origin": "http://controller:80"}, 200),
        ({"host": "controller:80", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9999"}, 403),
        ({"host": "controller:80", "origin": "null"}, 403),
    ],
    ids=str,
)
async def test_pages_of_other_sites_are_kept_out(
    port: int, bench: Bench, headers: dict[str, str], status: int
) -> None:
    """DNS rebinding, and forms that a page posts across sites: nothing is stored."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        answer = await web.post(MODELS, content=BODY, headers=headers)
        assert answer.status_code == status, answer.text
    found = await bench.registry.get_all_instances("m")
    assert bool(found) == (status == 200)


def test_what_leads_to_this_machine_only() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "controller"]))
