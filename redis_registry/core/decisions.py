"""What operators have decided, as one who follows the changes is told of it. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from redis_registry.core.events import (
    OF_ALIASES,
    OF_OVERRIDES,
    Event,
    Kind,
    decode_event,
    kind_of,
)
from redis_registry.store.following import Entry
from redis_registry.store.replies import NO_ORDERS, Orders, Page
from redis_registry.wire.in_force import Overrides
from redis_registry.wire.overrides import Override

__all__ = ["Decisions", "concerns", "is_decision", "orders_after"]


def is_decision(entry: Entry) -> bool:
    """Whether an entry tells of an override or an alias."""
    kind = kind_of(entry.head)
    return kind in OF_OVERRIDES or kind in OF_ALIASES


def concerns(entry: Entry, models: Collection[str]) -> bool:
    """Whether a decision may be about instances of one of these models."""
    event = _event(entry)
    if event.override is not None:
        return _about(event.override, models)
    alias = event.alias
    return alias is not None and bool({alias.alias, alias.model_name} & set(models))


def _about(override: Override, models: Collection[str]) -> bool:
    model = override.selector.one_model
    return model is None or model in models


def orders_after(orders: Orders, event: Event) -> Orders:
    """What holds after an event of an override or an alias; any other changes nothing."""
    overrides, aliases = orders.overrides, orders.aliases
    if event.override is not None:
        if event.kind is Kind.OVERRIDDEN:
            overrides = overrides.put(event.override)
        else:
            overrides = overrides.drop(event.override.name)
    elif event.alias is not None:
        aliases = {name: a for name, a in aliases.items() if name != event.subject}
        if event.kind is Kind.ALIAS_SET:
            aliases[event.subject] = event.alias
    else:
        return orders
    return Orders(f"{event.epoch}:{event.revision}".encode(), overrides, aliases)


def _event(entry: Entry) -> Event:
    return decode_event(b"%d-0" % entry.revision, {entry.head: entry.about})


@dataclass
class Decisions:
    """The orders of each partition.

    Attributes:
        by_partition: What holds; ended overrides only until the end is noticed. Replaced, not
            changed, for other threads read it.
        aliases: What each alias stands for.
    """

    by_partition: dict[int, Orders] = field(default_factory=dict[int, Orders])
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    _since: dict[int, list[Entry]] = field(default_factory=dict[int, list[Entry]])

    def overrides(self, partition: int) -> Overrides:
        """The overrides of a partition."""
        return self.by_partition.get(partition, NO_ORDERS).overrides

    def add(self, partition: int, page: Page) -> None:
        """Take in what came with a page; entries may have been told before or after it."""
        orders = page.orders
        for entry in self._since.get(partition, ()):
            if entry.revision > page.revision:
                orders = orders_after(orders, _event(entry))
        self._set(partition, orders)

    def replaces(self, entry: Entry, models: Collection[str]) -> bool:
        """Whether a decision takes the place of one that may be about these models."""
        event = _event(entry)
        orders = self.by_partition.get(entry.partition, NO_ORDERS)
        if event.override is not None:
            former = orders.overrides.get(event.override.name)
            return former is not None and _about(former, models)
        alias = orders.aliases.get(event.subject)
        return alias is not None and alias.model_name in models

    def tell(self, entry: Entry, *, reading: bool) -> set[str] | None:
        """Take in an entry.

        Args:
            entry: The entry.
            reading: Pages older than it may still come.

        Returns:
            Names of the models that look different; ``None``: it may be any.
        """
        if reading:
            self._since.setdefault(entry.partition, []).append(entry)
        event = _event(entry)
        before = self.by_partition.get(entry.partition, NO_ORDERS)
        self._set(entry.partition, orders_after(before, event))
        if event.override is None:
            return {event.subject}
        former = before.overrides.get(event.override.name) or event.override
        models = {one.selector.one_model for one in (former, event.override)}
        named = {model for model in models if model is not None}
        return named if len(named) == len(models) else None

    def expire(self, partition: int, now_us: int) -> bool:
        """Leave out what has ended by Redis's clock; whether there was any."""
        orders = self.by_partition.get(partition, NO_ORDERS)
        standing = orders.overrides.in_force(now_us)
        if len(standing) == len(orders.overrides):
            return False
        self._set(partition, orders._replace(overrides=standing))
        return True

    def lost(self, partition: int, fresh: Decisions, now_us: int) -> list[str]:
        """Names of the overrides and aliases that hold here and are not in what was read anew."""
        old, new = (one.by_partition.get(partition, NO_ORDERS) for one in (self, fresh))
        there = {override.name for override in new.overrides}
        return [
            override.name
            for override in old.overrides.in_force(now_us)
            if override.name not in there
        ] + [name for name in old.aliases if name not in new.aliases]

    def take_over(self, partition: int, fresh: Decisions) -> None:
        """Replace a partition by what was read anew."""
        self._set(partition, fresh.by_partition.get(partition, NO_ORDERS))

    def _set(self, partition: int, orders: Orders) -> None:
        self.by_partition = self.by_partition | {partition: orders}
        self.aliases = {
            name: alias.model_name
            for one in self.by_partition.values()
            for name, alias in one.aliases.items()
        }
