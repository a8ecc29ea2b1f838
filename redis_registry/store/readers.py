"""What readers do: read, sample, ask for the status."""

from __future__ import annotations

from typing import Any

from redis_registry.model import ModelInstance
from redis_registry.store.calls import Call, Calls, Operation, ask
from redis_registry.store.replies import Status, read_status
from redis_registry.wire.codec import decode_rows
from redis_registry.wire.keys import escape, partition_of

__all__ = ["READ_PAGE", "Readers"]

READ_PAGE = 1000
"""Instances per read call: about 3 ms of Redis's time."""

SAMPLE = 32
"""How many instances of a model a select looks at before it reads them all."""


class Readers(Calls):
    """Operations of readers."""

    def _read(
        self,
        partition: int,
        model: str,
        *,
        healthy_only: bool,
        after: tuple[bytes, bytes] = (b"0", b"0"),
        sample: int = 0,
    ) -> Call[list[Any]]:
        keys = self.keys(partition)
        return self._call(
            "read",
            partition,
            [
                keys.base,
                model,
                "1" if healthy_only else "0",
                after[0],
                after[1],
                str(READ_PAGE),
                str(sample),
            ],
            list,
        )

    def read(
        self, model_name: str | None, *, healthy_only: bool
    ) -> Operation[list[ModelInstance]]:
        """All instances of one model, or of all, in order of registration, page by page."""
        partitions = yield from self._join()
        if model_name is None:
            model, homes = "", range(partitions)
        else:
            model, homes = escape(model_name), [partition_of(model_name, partitions)]
        found: list[ModelInstance] = []
        asked = dict.fromkeys(homes, (b"0", b"0"))
        while asked:
            replies = yield [
                self._read(home, model, healthy_only=healthy_only, after=after)
                for home, after in asked.items()
            ]
            further: dict[int, tuple[bytes, bytes]] = {}
            for home, reply in zip(asked, replies, strict=True):
                found.extend(decode_rows(reply[5:]))
                if reply[0]:
                    further[home] = (reply[1], reply[2])
            asked = further
        return found

    def sample(
        self, model_name: str, *, size: int = SAMPLE, healthy_only: bool = True
    ) -> Operation[list[ModelInstance]]:
        """Up to 32 healthy instances of a model, drawn at random: enough for most selects."""
        partitions = yield from self._join()
        reply = yield from ask(
            self._read(
                partition_of(model_name, partitions),
                escape(model_name),
                healthy_only=healthy_only,
                sample=size,
            )
        )
        return decode_rows(reply[5:])

    def status(self) -> Operation[list[Status]]:
        """What each partition knows of itself."""
        partitions = yield from self._join()
        replies = yield [
            self._call("status", home, [], read_status) for home in range(partitions)
        ]
        return list(replies)
