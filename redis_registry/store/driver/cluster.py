"""A Cluster, as far as we need it: every call of ours is about keys of one slot.

redis-py's own client loses calls while a slot moves (ASK to a node it does not know, a busy
connection between ASKING and the command) and gives up ten tries within 0.13 s. Here a call goes
to the slot's node, follows what the nodes answer, and leaves repeating to the executor, under the
call's one deadline; the map of slots is read anew by one caller for all.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    RedisError,
)
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TimedOut

from redis_registry.store.driver.bound import Bound
from redis_registry.store.driver.nodes import Nodes
from redis_registry.store.driver.slots import SlotMap, key_of
from redis_registry.topology import Host

__all__ = ["AsyncCluster", "SyncCluster"]

MOST_REDIRECTS = 5
"""Answers of the kind "elsewhere" that one attempt follows; a sixth is left to the next."""

ANSWER_SECS = 1.0
"""How long a node is given to tell the map; then the next one is asked."""

_TELL = "CLUSTER", "SLOTS"

_CLOSED = "the registry was closed"

_STRANGERS = "those that answer know of none; name nodes that have met the others"

_LOST = (Disconnected, TimedOut, OSError, ClusterDownError)
"""The node is away, or is none of the Cluster's any more. (``TimeoutError`` is an ``OSError``.)"""

_SILENT = (TimedOut, TimeoutError)
"""The node says nothing, and to learn that has taken time."""

_SENT_BACK = (*_LOST, AskError)
"""What may mean another way; ``MovedError`` is an ``AskError``."""


def _redirect(error: AskError, host: Host) -> Host:
    told = cast("Any", error)  # untyped
    return (host[0] if told.host in {"", "?"} else told.host), int(told.port)


class _Step(NamedTuple):
    """What a driver has to do next.

    Attributes:
        host: Which node to send the command to; ``None``: have the map read anew.
        asking: The node is only taking the slot over: say ASKING before.
    """

    host: Host | None
    asking: bool = False


def _route(slots: SlotMap, key: str | bytes) -> Generator[_Step, Any, Any]:
    """The way of one command to its answer; both drivers go it.

    It is sent the reply to each step, or what the step raised.
    """
    slot = key_slot(key.encode() if isinstance(key, str) else key)
    if slots.stale:
        yield _Step(None)
    host, asking = slots.owner(slot), False
    if host is None:
        slots.stale = True
        msg = f"no node serves slot {slot}"
        raise ClusterDownError(msg)
    for _ in range(MOST_REDIRECTS):
        try:
            return (yield _Step(host, asking))
        except MovedError as error:
            host, asking = _redirect(error, host), False
            slots.moved(slot, host)
        except AskError as error:
            host, asking = _redirect(error, host), True
        except _LOST as error:
            slots.stale = True
            if isinstance(error, _SILENT):
                slots.silent(host)
            raise
    msg = f"slot {slot} is sent from node to node"
    raise ClusterDownError(msg)


def _ask_around(slots: SlotMap) -> Generator[Host, Any, None]:
    """Nodes to ask for the map, one after the other, until one has told it.

    One that is silent ends that, for it has taken the caller's time; the next caller asks the
    others first.
    """
    last: Exception | None = None
    for host in slots.to_ask():
        try:
            if slots.take((yield host), host):
                return
        except _SILENT as error:
            slots.silent(host)
            last = error
            break
        except _LOST as error:
            last = error
    if isinstance(last, AuthenticationError):  # waiting would not help
        raise last
    msg = f"no node of the Cluster tells its slots: {last or _STRANGERS}"
    raise Disconnected(msg) from last


class AsyncCluster:
    """Commands of one event loop.

    Args:
        hosts: Nodes to learn the others from.
        connect: Makes a client of a node; it connects on its first command.
        apart: Each first key has connections of its own, for commands that wait.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        connect: Callable[[Host], Any],
        *,
        apart: bool = False,
    ) -> None:
        self._map = SlotMap(hosts)
        self._nodes = Nodes(connect)
        self._apart = apart
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    def owner(self, key: str) -> Host | None:
        """The node that serves a key, as far as is known."""
        return self._map.owner(key_slot(key.encode()))

    async def execute_command(self, *args: Any) -> Any:
        """Send one command to its slot's node, and await its reply.

        Raises:
            redis.RedisError: As redis-py does.
        """
        key = key_of(args)
        way = _route(self._map, key)
        step = next(way)
        while True:
            try:
                reply = await self._take(step, key, args)
            except _SENT_BACK as error:
                step = way.throw(error)
                continue
            except asyncio.CancelledError:  # it has waited, perhaps for the dead
                self._map.stale = True
                if step.host is not None:
                    self._map.silent(step.host)
                raise
            try:
                step = way.send(reply)
            except StopIteration as arrived:
                return arrived.value

    async def _take(self, step: _Step, key: str | bytes, args: Sequence[Any]) -> Any:
        if step.host is None:
            return await self._read_map()
        return await self._send(step.host, key, args, asking=step.asking)

    async def _send(
        self, host: Host, key: str | bytes, args: Sequence[Any], *, asking: bool = False
    ) -> Any:
        if self._closed:
            raise Disconnected(_CLOSED)
        node = self._nodes.take((host, key if self._apart else ""))
        client = node.client
        try:
            if not asking:
                return await client.execute_command(*args)
            if hasattr(client, "ask"):
                return await client.ask(*args)
            return _told(await _asking(client, args).execute(raise_on_error=False))
        finally:
            await _close(self._nodes.give_back(node))

    async def _read_map(self) -> None:
        """Read the map; one caller does it, the others wait for that."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(
                self._ask_all(), name="redis-registry slots"
            )
            self._reading.add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )
        reading = self._reading
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            if reading.cancelled():  # by aclose, and not its caller
                raise Disconnected(_CLOSED) from None
            raise

    async def _ask_all(self) -> None:
        await asyncio.sleep(self._map.due())
        asked = _ask_around(self._map)
        host = next(asked)
        while True:
            try:
                async with Bound(asyncio.get_running_loop().time() + ANSWER_SECS):
                    reply = await self._send(host, "", _TELL)
            except _LOST as error:
                host = asked.throw(error)
                continue
            try:
                host = asked.send(reply)
            except StopIteration:
                break
        await _close(self._nodes.keep(self._map.names))

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await _close(self._nodes.empty())


async def _close(clients: Iterable[Any]) -> None:
    """Close those of nodes that left; how that ends is nobody's concern."""
    for client in clients:
        with suppress(RedisError, OSError):
            await client.aclose()


def _asking(client: Any, args: Sequence[Any]) -> Any:
    """Both commands on one connection, and nothing in between."""
    pipe = client.pipeline(transaction=False)
    pipe.execute_command("ASKING")
    pipe.execute_command(*args)
    return pipe


def _told(replies: Sequence[Any]) -> Any:
    """The second one's reply; the driver would put words before an error's code, which we go by."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies[1]


class SyncCluster:
    """Commands of any number of threads.

    Args:
        hosts: Nodes to learn the others from.
        connect: Makes a client of a node; it connects on its first command.
    """

    def __init__(self, hosts: Sequence[Host], connect: Callable[[Host], Any]) -> None:
        self._map = SlotMap(hosts)
        self._nodes = Nodes(connect)
        self._reading = threading.Lock()
        self._in_vain: Exception | None = None  # how the last reading failed

    def owner(self, key: str) -> Host | None:
        """The node that serves a key, as far as is known."""
        return self._map.owner(key_slot(key.encode()))

    def execute_command(self, *args: Any) -> Any:
        """Send one command to its slot's node, and return its reply.

        Raises:
            redis.RedisError: As redis-py does.
        """
        way = _route(self._map, key_of(args))
        step = next(way)
        while True:
            try:
                reply = self._take(step, args)
            except _SENT_BACK as error:
                step = way.throw(error)
                continue
            try:
                step = way.send(reply)
            except StopIteration as arrived:
                return arrived.value

    def _take(self, step: _Step, args: Sequence[Any]) -> Any:
        if step.host is None:
            return self._read_map()
        return self._send(step.host, args, asking=step.asking)

    def _send(self, host: Host, args: Sequence[Any], *, asking: bool = False) -> Any:
        node = self._nodes.take((host, ""))
        try:
            if not asking:
                return node.client.execute_command(*args)
            return _told(_asking(node.client, args).execute(raise_on_error=False))
        finally:
            self._close(self._nodes.give_back(node))

    def _read_map(self) -> None:
        """Read the map; one thread does it, the others wait for that, and fail as it does."""
        before = self._in_vain
        with self._reading:
            if not self._map.stale:  # another thread has read it meanwhile
                return
            if self._in_vain not in {None, before}:  # or has tried to
                raise cast("Exception", self._in_vain)
            try:
                self._ask_all()
            except Exception as error:
                self._in_vain = error
                raise
            self._in_vain = None

    def _ask_all(self) -> None:
        time.sleep(self._map.due())
        asked = _ask_around(self._map)
        host = next(asked)
        while True:
            try:
                reply = self._send(host, _TELL)
            except _LOST as error:
                host = asked.throw(error)
                continue
            try:
                host = asked.send(reply)
            except StopIteration:
                break
        self._close(self._nodes.keep(self._map.names))

    def _close(self, clients: Iterable[Any]) -> None:
        """Close those of nodes that left; how that ends is nobody's concern."""
        for client in clients:
            with suppress(RedisError, OSError):
                client.close()

    def close(self) -> None:
        """Close all connections."""
        for client in self._nodes.empty():
            client.close()
