"""What readers do: read, sample, ask for the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from redis_registry.model import ModelInstance
from redis_registry.settings import RegistrySettings
from redis_registry.store.calls import Call, Calls, Operation, ask
from redis_registry.store.replies import (
    NO_ORDERS,
    Orders,
    Page,
    Status,
    read_page,
    read_status,
)
from redis_registry.wire.keys import escape, partition_of

__all__ = ["READ_PAGE", "Readers"]

READ_PAGE = 1000
"""Instances per read call: about 3 ms of Redis's time."""

SAMPLE = 32
"""How many instances of a model a select looks at before it reads them all."""


_Place = tuple[bytes, bytes]
"""Where a page goes on: after which model, and which instance of it."""

_START: _Place = (b"0", b"0")


class Readers(Calls):
    """Operations of readers."""

    def __init__(self, settings: RegistrySettings, *, actor: str) -> None:
        super().__init__(settings, actor=actor)
        self._orders: dict[int, Orders] = {}

    def _read(
        self,
        partition: int,
        model: str,
        *,
        healthy_only: bool,
        after: _Place = _START,
        size: int = READ_PAGE,
        sample: int = 0,
        follow: bool = True,
    ) -> Call[Page]:
        keys = self.keys(partition)
        known = self._orders.get(partition, NO_ORDERS)

        def page(reply: list[Any]) -> Page:
            read = read_page(reply, known)
            if read.orders is not known:
                self._orders[partition] = read.orders
            return read

        return self._call(
            "read",
            partition,
            [
                keys.base,
                model,
                "1" if healthy_only else "0",
                after[0],
                after[1],
                str(size),
                str(sample),
                known.stamp,
                "1" if follow and model else "0",
                str(partition),
            ],
            page,
        )

    def read(
        self, model_name: str | None, *, healthy_only: bool
    ) -> Operation[list[ModelInstance]]:
        """All instances of one model, or of all, in order of registration, page by page.

        The name may be an alias: then it is the model that it stands for, wherever that lives.
        """
        partitions = yield from self._join()
        asked: dict[int, tuple[str, _Place]]
        if model_name is None:
            asked = dict.fromkeys(range(partitions), ("", _START))
        else:
            asked = {partition_of(model_name, partitions): (escape(model_name), _START)}
        found: list[ModelInstance] = []
        follow = True
        while asked:
            pages: Sequence[Page] = yield [
                self._read(
                    home, model, healthy_only=healthy_only, after=after, follow=follow
                )
                for home, (model, after) in asked.items()
            ]
            asked = _further(asked, pages, partitions)
            for page in pages:
                found += page.instances(healthy_only=healthy_only)
            follow = False
        return found

    def sample(
        self, model_name: str, *, size: int = SAMPLE, healthy_only: bool = True
    ) -> Operation[list[ModelInstance]]:
        """Up to 32 healthy instances of a model, drawn at random: enough for most selects."""
        partitions = yield from self._join()
        home, model = partition_of(model_name, partitions), escape(model_name)
        page = yield from ask(
            self._read(home, model, healthy_only=healthy_only, sample=size)
        )
        elsewhere = _home_of(page.target, partitions) if page.target else home
        if elsewhere != home:
            page = yield from ask(
                self._read(
                    elsewhere,
                    page.target,
                    healthy_only=healthy_only,
                    sample=size,
                    follow=False,
                )
            )
        return page.instances(healthy_only=healthy_only)

    def status(self) -> Operation[list[Status]]:
        """What each partition knows of itself."""
        partitions = yield from self._join()
        replies = yield [
            self._call("status", home, [], read_status) for home in range(partitions)
        ]
        return list(replies)


def _home_of(escaped: str, partitions: int) -> int:
    return partition_of(unquote(escaped), partitions)


def _further(
    asked: dict[int, tuple[str, _Place]],
    pages: Sequence[Page],
    partitions: int,
) -> dict[int, tuple[str, _Place]]:
    """What is left to be asked after these pages."""
    further: dict[int, tuple[str, _Place]] = {}
    for (home, (model, _)), page in zip(asked.items(), pages, strict=True):
        at = _home_of(page.target, partitions) if page.target else home
        if at != home:
            further[at] = (page.target, _START)
        elif page.after:
            further[home] = (page.target or model, page.after)
    return further
