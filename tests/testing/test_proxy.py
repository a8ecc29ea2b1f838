"""The proxy does to connections what it says, and the server sees what it should."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_registry import EmbeddedServerError
from redis_registry.testing import Proxy, Standalone, await_that
from tests.conftest import Server
from tests.helpers import wait_for


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.process.port) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Any]:
    made: Any = redis.Redis(
        port=proxy.port,
        socket_timeout=0.3,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,  # nothing but what the test sends
    )
    made.ping()
    yield made
    made.close()


pytestmark = pytest.mark.standalone("a proxy stands before one")

LOST = (redis.ConnectionError, redis.TimeoutError)


def test_a_swallowed_reply_is_of_a_call_that_was_made(
    server: Server, proxy: Proxy, client: Any
) -> None:
    proxy.swallowing = True
    with pytest.raises(redis.TimeoutError):
        client.incr("count")
    assert server.raw.get("count") == b"1"
    proxy.swallowing = False
    assert client.incr("count") == 2
    server.raw.delete("count")


def test_a_connection_that_has_lost_a_reply_gets_no_later_one(proxy: Proxy) -> None:
    """Else the next reply would be taken for the one that is missing."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as link:
        proxy.swallowing = True
        link.sendall(b"ECHO first\r\n")
        wait_for(lambda: proxy.swallowed, "its reply is lost")
        proxy.swallowing = False
        link.sendall(b"ECHO second\r\n")
        with pytest.raises(TimeoutError):
            link.recv(100)


def test_a_lost_reply_cuts_its_connection(
    server: Server, proxy: Proxy, client: Any
) -> None:
    proxy.lose_replies(2)
    for count in (b"1", b"2"):
        with pytest.raises(redis.ConnectionError):
            client.execute_command("INCR", "count")
        assert server.raw.get("count") == count
    assert client.incr("count") == 3
    assert proxy.cuts == 2
    server.raw.delete("count")


def test_a_request_can_be_delivered_again(
    server: Server, proxy: Proxy, client: Any
) -> None:
    client.incr("count")
    client.set("other", "first")
    client.set("other", "last")
    assert proxy.replay(b"INCR") == b":2\r\n"
    assert server.raw.get("count") == b"2"
    server.raw.set("other", "newer")
    assert proxy.replay(b"SET") == b"+OK\r\n"
    assert server.raw.get("other") == b"last"
    with pytest.raises(EmbeddedServerError, match="none to replay"):
        proxy.replay(b"EVALSHA")
    server.raw.delete("count", "other")


def test_frozen_nothing_passes_and_nothing_is_lost(
    server: Server, proxy: Proxy, client: Any
) -> None:
    proxy.frozen = True
    with pytest.raises(redis.TimeoutError):
        client.incr("count")
    assert server.raw.get("count") is None
    proxy.frozen = False
    await_that(lambda: server.raw.get("count") == b"1", "it arrives, late")
    assert client.ping()
    server.raw.delete("count")


def test_what_a_client_sent_before_it_went_arrives(
    server: Server, proxy: Proxy
) -> None:
    for count in range(1, 31):
        proxy.frozen = True
        with socket.create_connection(("127.0.0.1", proxy.port)) as link:
            link.sendall(b"INCR count\r\n")
        proxy.frozen = False
        await_that(lambda: server.raw.get("count") == b"%d" % count, "it arrives")  # noqa: B023
    server.raw.delete("count")


def test_delay_is_each_way(proxy: Proxy, client: Any) -> None:
    proxy.delay_secs = 0.1
    start = time.monotonic()
    assert client.ping()
    assert time.monotonic() >= start + 0.2


def test_refused_cut_and_sent_elsewhere(
    server: Server, proxy: Proxy, client: Any
) -> None:
    proxy.refusing = True
    assert client.ping()  # the connection that it has
    proxy.cut()
    await_that(lambda: proxy.cuts == 1, "it is cut")
    for _ in range(2):
        with pytest.raises(LOST):
            client.ping()
    proxy.refusing = False
    with Standalone() as other:
        other.call("SET", "who", "other")
        proxy.target = other.port
        assert client.get("who") == b"other"
        proxy.cut()
