"""Two releases on one Redis: a fleet is upgraded member by member, and rolled back (S4)."""

from __future__ import annotations

import signal
from collections.abc import Container, Iterator
from typing import Any

import pytest

from redis_registry import Identity
from redis_registry.testing import Proxy, Standalone
from redis_registry.wire.keys import identity_text
from tests.helpers import Store, connect, wait_for
from tests.upgrade.conftest import Enlist, Member
from tests.upgrade.member import MODEL, TIMEOUT_SECS

SETTLE_SECS = 3 * TIMEOUT_SECS
EACH = 3


@pytest.fixture
def redis() -> Iterator[Standalone]:
    # What a killed server has answered is in the hands of the kernel before.
    with Standalone(options={"appendonly": "yes", "appendfsync": "no"}) as made:
        yield made


class Fleet:
    """Members of both releases, and two readers that see all of it.

    Args:
        server: Redis.
        proxy: Through which the members reach it.
        enlist: Starts a member.
    """

    def __init__(self, server: Standalone, proxy: Proxy, enlist: Enlist) -> None:
        self.server = server
        self.proxy = proxy
        self.enlist = enlist
        self.members: list[Member] = []
        self.dead: set[str] = set()
        self.gone: set[str] = set()
        self._next = 1
        self.readers = {
            release: enlist(release, proxy.url, first=60_000 + n)
            for n, release in enumerate(("old", "new"))
        }
        for reader in self.readers.values():
            reader.ready()

    def join(self, *releases: str) -> list[Member]:
        """More members, at once."""
        new: list[Member] = []
        for release in releases:
            made = self.enlist(release, self.proxy.url, first=self._next, count=EACH)
            self._next += EACH
            new.append(made)
        for member in new:
            member.ready()
        self.members += new
        return new

    def _identities(self, member: Member) -> set[str]:
        found = (Identity(MODEL, "10.0.0.1", port) for port in member.ports)
        return {identity_text(one) for one in found}

    def kill(self, member: Member) -> None:
        member.kill()
        self.members.remove(member)
        self.dead |= self._identities(member)

    def leave(self, member: Member) -> None:
        member.leave()
        self.members.remove(member)
        self.gone |= self._identities(member)

    def leader(self) -> Member | None:
        """Who of the members holds the lease; a reader never keeps it for long."""
        raw = connect(self.server.url)
        holder = Store(raw).hash("lease").get("holder")
        raw.close()
        everybody = [*self.members, *self.readers.values()]
        return next((one for one in everybody if one.holder == holder), None)

    def settle(self) -> dict[str, Any]:
        """Both releases see the same, and it is true; what they see."""

        def state() -> dict[str, Any] | None:
            old, new = (one.ask("view") for one in self.readers.values())
            mine = {k: v for k, v in new.items() if v["model_name"] == MODEL}
            same = {k: v for k, v in old.items() if v["model_name"] == MODEL} == mine
            alive = {one["port"] for one in mine.values() if one["healthy"]}
            wanted = {port for member in self.members for port in member.ports}
            return mine if same and alive == wanted else None

        wait_for(state, "both see who lives and who not", within_secs=SETTLE_SECS)
        found = state()
        while found is None:
            found = state()
        return found

    def judge(self, *, forgiven: Container[str] = ()) -> None:
        """Nobody who lived was declared dead; the dead were; nothing was left untold.

        Args:
            forgiven: Kinds of errors that callers may have been told.
        """
        for reader in self.readers.values():
            watched = reader.ask("watch")
            assert watched["gaps"] == []
            deaths = [one for one in watched["deaths"] if one.startswith(f"{MODEL}:")]
            assert set(deaths) == self.dead, reader.name
            assert len(deaths) == len(self.dead), "each once"
            worked = reader.ask("worked")
            assert worked["calls"] > 20
            told = [e for e in worked["errors"] if e.split(":")[0] not in forgiven]
            assert told == []


@pytest.mark.timeout(120)
def test_a_fleet_is_upgraded_under_faults_and_rolled_back(
    redis: Standalone, enlist: Enlist
) -> None:
    with Proxy(redis.port) as proxy:
        fleet = Fleet(redis, proxy, enlist)
        old = fleet.join("old", "old")
        fleet.settle()
        for reader in fleet.readers.values():
            reader.ask("work")
        (new,) = fleet.join("new")
        fleet.settle()
        fleet.leave(old[0])
        fleet.kill(old[1])  # one of the old dies without a word beside the new
        redis.kill()
        redis.start()
        fleet.settle()
        fleet.join("new")
        proxy.cut()
        fleet.settle()

        # Back: the new dies beside the old.
        fleet.join("old")
        fleet.kill(new)
        redis.kill()
        redis.start()
        proxy.cut()
        fleet.settle()
        fleet.judge()


def test_the_lease_passes_from_one_release_to_the_other_and_back(
    redis: Standalone, enlist: Enlist
) -> None:
    """Whoever leads is killed, or frozen; whoever is left is of the other release."""
    raw = connect(redis.url)
    store = Store(raw)
    tokens: list[int] = []
    leader = enlist("old", redis.url, first=1)
    leader.ready()
    for release in ("new", "old", "new"):
        heir = enlist(release, redis.url, first=1)
        heir.ready()
        wait_for(
            lambda one=leader: store.hash("lease")["holder"] == one.holder, "it leads"
        )
        tokens.append(int(store.hash("lease")["token"]))
        leader.process.send_signal(signal.SIGSTOP)
        wait_for(
            lambda one=heir: store.hash("lease")["holder"] == one.holder,
            "the other release leads",
        )
        token = store.hash("lease")["token"]
        leader.process.send_signal(signal.SIGCONT)
        assert leader.call("get_all_instances", MODEL) == [], "it is back"
        assert store.hash("lease")["token"] == token, "and leads no more"
        leader.kill()
        leader = heir
    tokens.append(int(store.hash("lease")["token"]))
    assert tokens == sorted(set(tokens)), "each term has a greater token"
    raw.close()
