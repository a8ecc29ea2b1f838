"""What readers do: read, sample, ask for the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from redis_registry.model import ModelInstance
from redis_registry.settings import RegistrySettings
from redis_registry.store.calls import Call, Calls, Operation
from redis_registry.store.replies import (
    NO_ORDERS,
    Orders,
    Page,
    Status,
    read_page,
    read_status,
)
from redis_registry.telemetry import DEAF, Telemetry
from redis_registry.wire.keys import escape, partition_of

__all__ = ["READ_PAGE", "SERVED", "Readers"]

READ_PAGE = 1000
"""Instances per read call: about 3 ms of Redis's time."""

SAMPLE = 32
"""How many instances of a model a select looks at before it reads them all."""


_Place = tuple[bytes, bytes]
"""Where a page goes on: after which model, and which instance of it."""

_START: _Place = (b"0", b"0")
SERVED: _Place = (b"served", b"")
"""Past the instances of the model: those that also serve the name."""


class Readers(Calls):
    """Operations of readers."""

    def __init__(
        self, settings: RegistrySettings, *, actor: str, telemetry: Telemetry = DEAF
    ) -> None:
        super().__init__(settings, actor=actor, telemetry=telemetry)
        self._orders: dict[int, Orders] = {}

    def _read(
        self,
        partition: int,
        name: str,
        *,
        healthy_only: bool,
        after: _Place,
        size: int = READ_PAGE,
        sample: int = 0,
        follow: bool = True,
    ) -> Call[Page]:
        keys = self.keys(partition)
        known = self._orders.get(partition, NO_ORDERS)

        def page(reply: list[Any]) -> Page:
            read = read_page(reply, known, self.telemetry)
            if read.orders is not known:
                self._orders[partition] = read.orders
            return read

        return self._call(
            "read",
            partition,
            [
                keys.base,
                escape(name),
                "1" if healthy_only else "0",
                after[0],
                after[1],
                str(size),
                str(sample),
                known.stamp,
                "1" if follow and name else "0",
            ],
            page,
        )

    def read(
        self, model_name: str | None, *, healthy_only: bool
    ) -> Operation[list[ModelInstance]]:
        """All instances of one model, or of all, in order of registration, page by page.

        The name may be an alias: then it is the one that it stands for. After the instances of
        the model come those of others that serve it too, in alphabetical order.
        """
        partitions = yield from self._join()
        name = model_name or ""
        asked = self._places_of(name, partitions)
        found: dict[int, list[ModelInstance]] = {home: [] for home in asked}
        follow = True
        while asked:
            pages: Sequence[Page] = yield [
                self._read(
                    home, name, healthy_only=healthy_only, after=after, follow=follow
                )
                for home, after in asked.items()
            ]
            name, elsewhere = _resolved(name, pages, partitions)
            if elsewhere:
                asked = self._places_of(name, partitions)
                found = {home: [] for home in asked}
            else:
                for home, page in zip(asked, pages, strict=True):
                    found[home] += page.instances(healthy_only=healthy_only, of=name)
                asked = {
                    home: page.after
                    for home, page in zip(asked, pages, strict=True)
                    if page.after
                }
            follow = False
        return [instance for part in found.values() for instance in part]

    def _places_of(self, name: str, partitions: int) -> dict[int, _Place]:
        """Where to begin to read a name, or all: its model is in one partition.

        Instances of other models may serve it in any.
        """
        if not name:
            return dict.fromkeys(range(partitions), _START)
        model = {partition_of(name, partitions): _START}
        return model | dict.fromkeys(range(partitions), SERVED) | model

    def sample(
        self, name: str, *, size: int = SAMPLE, healthy_only: bool = True
    ) -> Operation[list[ModelInstance]]:
        """Up to 32 healthy instances of a name, drawn at random: enough for most selects.

        Of a name that is served in several partitions they are all: their samples would have
        to be weighed against each other.
        """
        partitions = yield from self._join()
        elsewhere, follow = True, True
        pages: Sequence[Page] = ()
        while elsewhere:
            pages = yield [
                self._read(
                    home,
                    name,
                    healthy_only=healthy_only,
                    after=after,
                    sample=size,
                    follow=follow,
                )
                for home, after in self._places_of(name, partitions).items()
            ]
            name, elsewhere = _resolved(name, pages, partitions)
            follow = False
        some = [page for page in pages if page.rows]
        if len(some) > 1:
            return (yield from self.read(name, healthy_only=healthy_only))
        return some[0].instances(healthy_only=healthy_only, of=name) if some else []

    def status(self) -> Operation[list[Status]]:
        """What each partition knows of itself."""
        partitions = yield from self._join()
        replies = yield [
            self._call("status", home, [], read_status) for home in range(partitions)
        ]
        return list(replies)


def _resolved(name: str, pages: Sequence[Page], partitions: int) -> tuple[str, bool]:
    """The name that these pages were read of, or that an alias told among them stands for.

    And whether that is still to be read: with several partitions an alias is only told.
    """
    target = next((page.target for page in pages if page.target), "")
    return (unquote(target), partitions > 1) if target else (name, False)
