"""What operators decide: overrides and aliases."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from redis_registry.errors import InvalidOverride, LimitReached
from redis_registry.store.calls import Call, Calls, Operation, micros, text
from redis_registry.store.replies import Orders, read_orders
from redis_registry.wire.aliases import MAX_ALIASES, Alias, decode_alias
from redis_registry.wire.keys import escape, partition_of
from redis_registry.wire.overrides import (
    MAX_OVERRIDES,
    Override,
    decode_override,
    encode_override,
)

__all__ = ["Operators"]


class Operators(Calls):
    """Operations of operators.

    An override of one model lives in that model's partition, any other one in all of them; an
    alias lives in the partition of its own name.
    """

    def override(
        self, override: Override, *, expires_secs: float | None
    ) -> Operation[Override]:
        """Set an override, or replace the one of its name; as stored.

        Raises:
            InvalidOverride: It is too large.
            LimitReached: A partition holds as many as it may.
        """
        record, operation = encode_override(override), secrets.token_hex(8)
        partitions = yield from self._join()
        model = override.selector.one_model
        homes = (
            range(partitions) if model is None else [partition_of(model, partitions)]
        )
        yield from self._room_for(override.name, homes)
        args = [
            override.name,
            operation,
            "0" if expires_secs is None else micros(expires_secs),
            record,
            str(MAX_OVERRIDES),
        ]
        stored: Sequence[bytes] = yield [
            self._call("override", home, args, bytes) for home in homes
        ]
        if not all(stored):  # everywhere or nowhere: others took the room meanwhile
            yield [
                self._clear("override", home, override.name, operation, "no room")
                for home, record in zip(homes, stored, strict=True)
                if record
            ]
            raise _too_many(override.name)
        others = set(range(partitions)) - set(homes)
        if others:  # one of that name may have meant another model
            yield [
                self._clear("override", home, override.name, operation, "replaced")
                for home in sorted(others)
            ]
        return decode_override(override.name.encode(), stored[0])

    def _room_for(self, name: str, homes: Sequence[int]) -> Operation[None]:
        """Refuse one that does not fit everywhere while the former of its name still stands."""
        if len(homes) == 1:  # the script refuses it before it changes anything
            return
        found: Sequence[Orders] = yield [
            self._call("orders", home, [], _on_record) for home in homes
        ]
        for overrides in (part.overrides for part in found):
            known = any(standing.name == name for standing in overrides)
            if len(overrides) >= MAX_OVERRIDES and not known:
                raise _too_many(name)

    def clear_override(self, name: str, why: str) -> Operation[bool]:
        """Clear an override, wherever it is; whether there was one."""
        partitions = yield from self._join()
        operation = secrets.token_hex(8)
        cleared = yield [
            self._clear("override", home, name, operation, why)
            for home in range(partitions)
        ]
        return any(cleared)

    def _clear(
        self, what: str, home: int, name: str, operation: str, why: str
    ) -> Call[int]:
        key, kind = _ORDERS[what]
        return self._call(
            "clear",
            home,
            [name, operation, kind, escape(why)],
            int,
            orders=self.keys(home).named(key),
        )

    def orders(self) -> Operation[list[Orders]]:
        """The overrides that are in force and the aliases, by partition."""
        partitions = yield from self._join()
        found = yield [
            self._call("orders", home, [], _in_force) for home in range(partitions)
        ]
        return list(found)

    def set_alias(self, alias: Alias) -> Operation[Alias]:
        """Point an alias to a model; as stored.

        Raises:
            InvalidOverride: It would make a chain of aliases.
            LimitReached: Its partition holds as many as it may.
        """
        known = yield from self.orders()
        aliases = {
            name: other for part in known for name, other in part.aliases.items()
        }
        _no_chain(alias, aliases)
        partitions = yield from self._join()
        name = escape(alias.alias)
        target = escape(alias.model_name)
        (record,) = yield [
            self._call(
                "alias",
                partition_of(alias.alias, partitions),
                [name, target, escape(alias.author), str(MAX_ALIASES)],
                bytes,
            )
        ]
        if not record:
            msg = f"alias {alias.alias!r}: there are {MAX_ALIASES} already: remove some"
            raise LimitReached(msg)
        return decode_alias(name.encode(), record)

    def remove_alias(self, alias: str, why: str) -> Operation[bool]:
        """Remove an alias; whether there was one."""
        partitions = yield from self._join()
        home = partition_of(alias, partitions)
        (removed,) = yield [
            self._clear("alias", home, escape(alias), secrets.token_hex(8), why)
        ]
        return bool(removed)


_ORDERS = {
    "override": ("overrides", "override_cleared"),
    "alias": ("aliases", "alias_removed"),
}


def _too_many(name: str) -> LimitReached:
    return LimitReached(
        f"override {name}: there are {MAX_OVERRIDES} already: clear some"
    )


def _on_record(reply: list[Any]) -> Orders:
    return read_orders(b"", *reply[1:])


def _in_force(reply: list[Any]) -> Orders:
    orders = _on_record(reply)
    return orders._replace(overrides=orders.overrides.in_force(int(text(reply[0]))))


def _no_chain(alias: Alias, aliases: dict[str, Alias]) -> None:
    further = aliases.get(alias.model_name)
    if further is not None:
        msg = (
            f"alias {alias.alias!r}: {alias.model_name!r} is an alias itself, of "
            f"{further.model_name!r}: point to that"
        )
        raise InvalidOverride(msg)
    before = [
        name for name, other in aliases.items() if other.model_name == alias.alias
    ]
    if before:
        msg = (
            f"alias {alias.alias!r}: {before[0]!r} is an alias of it: point that to "
            f"{alias.model_name!r} instead"
        )
        raise InvalidOverride(msg)
