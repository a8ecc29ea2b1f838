"""What the registry knows, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from redis_registry.model import Health, ModelInstance
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override

__all__ = ["ago", "aliases_table", "instances_table", "overrides_table"]

_COLOURS = {
    Health.HEALTHY: "green",
    Health.PROTECTED: "yellow",
    Health.OVERDUE: "red",
    Health.UNHEALTHY: "red",
    Health.FORCED: "red",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def ago(then: datetime | None, now: datetime) -> str:
    """How long ago, in the unit a person would choose."""
    if then is None:
        return "never"
    secs = (now - then).total_seconds()
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if secs >= 2 * unit:
            return f"{secs / unit:.0f} {name} ago"
    return f"{secs:.1f} s ago"


def _readiness(item: ModelInstance) -> str:
    if item.ready:
        return "yes"
    reason = f": {escape(item.reason)}" if item.reason else ""
    return f"[yellow]{item.readiness.replace('_', ' ')}[/]{reason}"


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
            escape(item.model_name),
            escape(f"{host}:{item.port}"),
            f"[{_COLOURS[state]}]{state}[/]",
            _readiness(item),
            "yes" if item.enabled else "[red]no[/]",
            "-" if item.weight is None else f"{item.weight:g}",
            ago(item.last_heartbeat, now),
            *([escape(", ".join(item.overrides))] if overridden else []),
        )
    return table


def _left(until: datetime | None, now: datetime) -> str:
    if until is None:
        return "cleared"
    return f"{max((until - now).total_seconds(), 0):.0f} s more"


def overrides_table(overrides: Iterable[Override], now: datetime) -> Table:
    """One row an override; ``now`` is Redis's clock."""
    table = _table("NAME", "INSTANCES", "SAYS", "BY", "SINCE", "UNTIL", "REASON")
    for item in overrides:
        said = item.says
        labels: dict[str, str] = said.pop("labels", {})
        parts = [f"{name}={_plain(value)}" for name, value in said.items()]
        parts += [f"{name}={value}" for name, value in labels.items()]
        table.add_row(
            escape(item.name),
            escape(str(item.selector)),
            escape(" ".join(parts)),
            escape(item.author),
            ago(item.at, now),
            _left(item.expires, now),
            escape(item.reason),
        )
    return table


def _plain(value: bool | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"


def aliases_table(aliases: Iterable[Alias], now: datetime) -> Table:
    """One row an alias; ``now`` is Redis's clock."""
    table = _table("ALIAS", "MODEL", "BY", "SINCE")
    for item in aliases:
        table.add_row(
            escape(item.alias),
            escape(item.model_name),
            escape(item.author),
            ago(item.at, now),
        )
    return table
