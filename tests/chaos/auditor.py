"""Reads the event streams behind the registry's back, as they are: what truly was written, and when.

All servers are asked again and again. An entry was written after the last round in which every
server that could have taken it was read without it, and before the round that found it. One that is
killed or paused has taken what nobody has read: it is found later, there or where it was copied to.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_registry.testing import Standalone
from tests.chaos.notebook import Notebook

__all__ = ["PREFIX", "ROUND_SECS", "Auditor"]

ROUND_SECS = 0.03
ANSWER_SECS = 0.5
DRIFT_SECS = 0.0002
"""What the machine's clocks may differ by more than they did, before it is noted."""
PREFIX = "rr:{default/%d}:"

_Raw = tuple[bytes, dict[bytes, bytes]]


class _Place(NamedTuple):
    """Which stream was read up to where."""

    port: int
    partition: int


class Auditor:
    """A thread that notes entries and times without any server.

    Args:
        book: Where.
        servers: Gives all servers that there are now.
        partitions: How many partitions the namespace has.
    """

    def __init__(
        self,
        book: Notebook,
        servers: Callable[[], Sequence[Standalone]],
        partitions: int,
    ) -> None:
        self._book = book
        self._servers = servers
        self._partitions = partitions
        self._clients: dict[int, Any] = {}
        self._last: dict[_Place, _Raw | None] = {}
        self._known: dict[tuple[int, str, int], bytes] = {}
        self._complete = self._started = time.monotonic()
        self._read_at: dict[_Place, float] = {}
        self._away: dict[int, float] = {}
        self._split: float | None = None
        self._ahead = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Read once more, and end."""
        self._stop.set()
        self._thread.join()
        for client in self._clients.values():
            client.close()

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            self._round()
            if last:
                return
            self._stop.wait(ROUND_SECS)

    def _round(self) -> None:
        self._note_clock()
        begun = time.monotonic()
        whole = True
        read: list[_Place] = []
        for server in self._servers():
            if not server.alive:
                continue  # nobody can write there
            try:
                read += self._read(server)
            except (redis.RedisError, OSError):
                # Killed meanwhile? Then nothing is written there from now on.
                whole = whole and not server.alive
        served = Counter(place.partition for place in read)
        self._read_at |= dict.fromkeys(read, begun)
        self._note_away(set(served), begun)
        self._note_split(two=max(served.values(), default=0) > 1, begun=begun)
        if whole:
            self._complete = begun

    def _note_clock(self) -> None:
        """Note how far the machine's wall clock, by which Redis goes, is ahead of all notes' clock."""
        before = time.monotonic()
        wall = time.time()
        after = time.monotonic()
        ahead = wall - after
        # Who was interrupted between the two has measured nothing.
        if after - before < DRIFT_SECS and abs(ahead - self._ahead) > DRIFT_SECS:
            self._ahead = ahead
            self._book.write("clock", ahead=ahead)

    def _note_split(self, *, two: bool, begun: float) -> None:
        """Note from when to when two servers took writes for the same partition."""
        if two and self._split is None:
            self._split = self._complete
        elif not two and self._split is not None:
            self._book.write("two primaries", begun=self._split)
            self._split = None

    def _note_away(self, served: set[int], begun: float) -> None:
        """Note from when to when nobody served a partition."""
        for partition in range(self._partitions):
            if partition in served:
                since = self._away.pop(partition, None)
                if since is not None:
                    self._book.write("away", partition=partition, begun=since)
            else:
                self._away.setdefault(partition, begun)

    def _client(self, port: int) -> Any:
        if port not in self._clients:
            self._clients[port] = redis.Redis(
                port=port,
                protocol=2,
                socket_timeout=ANSWER_SECS,
                socket_connect_timeout=ANSWER_SECS,
                retry=Retry(NoBackoff(), 0),
            )
        return self._clients[port]

    def _read(self, server: Standalone) -> list[_Place]:
        """Read what is new on a primary: the streams of the partitions that it serves."""
        client = self._client(server.port)
        pipe = client.pipeline(transaction=False)
        pipe.role()
        for partition in range(self._partitions):
            last = self._last.get(_Place(server.port, partition))
            since = last[0].decode() if last else "-"
            pipe.xrange(PREFIX % partition + "events", since, "+")
        role, *streams = pipe.execute(raise_on_error=False)
        if isinstance(role, Exception):
            raise role
        if role[0] not in (b"master", "master"):
            return []
        read: list[_Place] = []
        for partition, found in enumerate(streams):
            if not isinstance(found, Exception):
                place = _Place(server.port, partition)
                self._take(client, place, found)
                read.append(place)
        return read

    def _after(self, place: _Place) -> float:
        """Before what moment nothing can have been written that is found there only now.

        It was written there, or by the primary before, whichever was read last: all that those have had
        was read then.
        """
        of_partition = [
            at for p, at in self._read_at.items() if p.partition == place.partition
        ]
        latest = max(of_partition, default=self._started)
        return min(self._complete, latest, self._read_at.get(place, latest))

    def _take(self, client: Any, place: _Place, found: list[_Raw]) -> None:
        last = self._last.get(place)
        if last is not None:
            if found and found[0] == last:
                found = found[1:]
            else:  # it has lost what it had: restarted, flushed, or a replica before
                found = client.xrange(PREFIX % place.partition + "events")
        for entry in found:
            self._note(place, entry)
            self._last[place] = entry

    def _note(self, place: _Place, entry: _Raw) -> None:
        number, fields = entry
        ((head, about),) = fields.items()
        epoch = head.split(b"|", 1)[0].decode()
        revision = int(number.split(b"-")[0])
        key = (place.partition, epoch, revision)
        whole = head + b" " + about
        known = self._known.setdefault(key, whole)
        if known is not whole and known == whole:
            return
        self._book.write(
            "entry",
            partition=place.partition,
            epoch=epoch,
            rev=revision,
            after=self._after(place),
            port=place.port,
            head=head.decode(errors="surrogateescape"),
            about=about.decode(errors="surrogateescape"),
            other=known is not whole,
        )
