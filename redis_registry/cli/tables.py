"""What the registry knows, as tables for a person."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from redis_registry.model import Health, ModelInstance
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override

__all__ = [
    "ago",
    "aliases_table",
    "console",
    "decision",
    "instances_table",
    "left",
    "overrides_table",
    "shown",
]

_COLOURS = {
    Health.HEALTHY: "green",
    Health.PROTECTED: "yellow",
    Health.OVERDUE: "red",
    Health.UNHEALTHY: "red",
    Health.FORCED: "red",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDE = 10_000


def console() -> Console:
    """Where to print: as wide as the terminal; for a program that reads it, a row is a line."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_WIDE if piped else None, emoji=False)


def shown(text: str) -> str:
    """What others wrote, as it is: it can give no orders to a terminal, and begin no line."""
    plain = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return escape(plain)


def ago(then: datetime | None, now: datetime) -> str:
    """How long ago, in the unit a person would choose."""
    if then is None:
        return "never"
    secs = (now - then).total_seconds()
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if secs >= 2 * unit:
            return f"{secs / unit:.0f} {name} ago"
    return f"{secs:.1f} s ago"


def _readiness(item: ModelInstance, now: datetime) -> str:
    if item.ready:
        return _held_out(item, now) or "yes"
    reason = f": {shown(item.reason)}" if item.reason else ""
    return f"[yellow]{item.readiness.replace('_', ' ')}[/]{reason}"


def _held_out(item: ModelInstance, now: datetime) -> str:
    held = item.held_out
    if held is None:
        return ""
    when = "probe due" if held.half_open else left(held.until, now)
    return f"[yellow]held out[/]: {held.cause}, {when}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def instances_table(instances: Iterable[ModelInstance], now: datetime) -> Table:
    """One row an instance; ``now`` is Redis's clock."""
    instances = list(instances)
    headings = ["MODEL", "ADDRESS", "STATE", "READY", "ENABLED", "WEIGHT", "LAST BEAT"]
    overridden = any(item.overrides for item in instances)
    if overridden:
        headings.append("OVERRIDES")
    table = _table(*headings)
    for item in instances:
        state = item.state or Health.UNHEALTHY
        host = f"[{item.host}]" if ":" in item.host else item.host
        table.add_row(
            shown(item.model_name),
            shown(f"{host}:{item.port}"),
            f"[{_COLOURS[state]}]{state}[/]",
            _readiness(item, now),
            "yes" if item.enabled else "[red]no[/]",
            "-" if item.weight is None else f"{item.weight:g}",
            ago(item.last_heartbeat, now),
            *([shown(", ".join(item.overrides))] if overridden else []),
        )
    return table


def left(until: datetime | None, now: datetime) -> str:
    """How long something goes on; ``None``: until it is cleared."""
    if until is None:
        return "cleared"
    return f"{max((until - now).total_seconds(), 0):.0f} s more"


def overrides_table(overrides: Iterable[Override], now: datetime) -> Table:
    """One row an override; ``now`` is Redis's clock."""
    table = _table("NAME", "INSTANCES", "SAYS", "BY", "SINCE", "UNTIL", "REASON")
    for item in overrides:
        table.add_row(
            shown(item.name),
            shown(str(item.selector)),
            shown(decision(item)),
            shown(item.author),
            ago(item.at, now),
            left(item.expires, now),
            shown(item.reason),
        )
    return table


def decision(override: Override) -> str:
    """What an override says: ``draining=yes weight=0.5 rack=7``."""
    said = override.says
    labels: dict[str, str] = said.pop("labels", {})
    plain = {name: _plain(value) for name, value in said.items()} | labels
    return " ".join(f"{name}={value}" for name, value in plain.items())


def _plain(value: bool | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"


def aliases_table(aliases: Iterable[Alias], now: datetime) -> Table:
    """One row an alias; ``now`` is Redis's clock."""
    table = _table("ALIAS", "MODEL", "BY", "SINCE")
    for item in aliases:
        table.add_row(
            shown(item.alias),
            shown(item.model_name),
            shown(item.author),
            ago(item.at, now),
        )
    return table
