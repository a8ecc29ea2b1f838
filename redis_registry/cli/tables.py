"""What the registry knows, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from redis_registry.model import Health, ModelInstance

__all__ = ["ago", "instances_table"]

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


def instances_table(instances: Iterable[ModelInstance], now: datetime) -> Table:
    """One row an instance; ``now`` is Redis's clock."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "MODEL",
        "ADDRESS",
        "STATE",
        "READY",
        "ENABLED",
        "WEIGHT",
        "LAST BEAT",
    ):
        table.add_column(heading, overflow="fold")
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
        )
    return table
