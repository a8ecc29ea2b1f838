"""The command ``explain``: a page for a person who asks why an instance gets no work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table

from redis_registry.cli.common import NAMESPACE, URL, Namespace, Url, place, reading
from redis_registry.cli.tables import ago, console, decision, left, shown
from redis_registry.core.events import Kind
from redis_registry.core.explanation import (
    Explanation,
    ModelExplanation,
    Penalties,
)
from redis_registry.model import Identity

__all__ = ["explain"]

Line = tuple[str, str]
"""What it is about, and what is said of it; marked up."""


def explain(
    model: Annotated[str, typer.Argument(help="A model's name, or an alias.")],
    address: Annotated[
        str | None,
        typer.Argument(metavar="[HOST:PORT]", help="One instance of it."),
    ] = None,
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why an instance, or a model's instances, may or may not receive work."""
    host, port = place(address)
    if address is not None and (host is None or port is None):
        raise typer.BadParameter("give HOST:PORT", param_hint="HOST:PORT")
    with reading(url, namespace) as registry:
        if host is None or port is None:
            found = registry.explain(model)
        else:
            found = registry.explain(Identity(model, host, port))
    if as_json:
        typer.echo(found.model_dump_json())
        return
    out = console()
    if isinstance(found, Explanation):
        out.print(_verdict(found), _page(_of_instance(found)), sep="\n")
    else:
        out.print(_model_verdict(found), _page(_of_model(found)), sep="\n")
        if found.instances:
            out.print("", _instances(found), sep="\n")
    if found.transitions:
        out.print("", _transitions(found), sep="\n")


def _verdict(found: Explanation) -> str:
    who = f"[bold]{shown(str(found.identity))}[/]"
    if found.reason is None:
        return f"{who} [green]takes work[/]"
    reason = found.reason.replace("_", " ")
    if found.last_resort:
        return f"{who} takes work [yellow]for want of others[/]: {reason}"
    return f"{who} takes [red]no work[/]: {reason}"


def _model_verdict(found: ModelExplanation) -> str:
    who = f"[bold]{shown(found.model_name)}[/]"
    if not found.known:
        return f"{who} is [red]unknown[/]"
    total = found.selectable + sum(found.reasons.values())
    colour = "green" if found.selectable else "red"
    return f"{who}: [{colour}]{found.selectable} of {total}[/] take work"


def _page(lines: Iterator[Line]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _common(found: Explanation | ModelExplanation) -> Iterator[Line]:
    yield "why", shown(found.because)
    if found.remedy:
        yield "remedy", shown(found.remedy)
    if found.alias is not None:
        alias = found.alias
        yield (
            "alias",
            shown(
                f"{alias.alias} is {alias.model_name} by {alias.author}, "
                f"{ago(alias.at, found.now)}"
            ),
        )
    for one in found.protections:
        yield (
            one.by,
            shown(f"{one.scope}: {one.cause}; at most {left(one.until, found.now)}"),
        )


def _of_instance(found: Explanation) -> Iterator[Line]:
    yield from _common(found)
    item = found.instance
    if item is not None:
        enabled = "enabled" if item.enabled else "disabled"
        state = f"{item.state}, {item.readiness}, {enabled}"
        yield "state", state.replace("_", " ")
        yield "last beat", _beat(found)
        weight = "1" if item.weight is None else f"{item.weight:g}"
        yield "weight", weight
        if item.incarnation:
            yield "life", shown(item.incarnation)
    for override in found.overrides:
        end = "until cleared"
        if override.expires is not None:
            end = left(override.expires, found.now)
        yield (
            "override",
            shown(
                f"{override.name}: {decision(override)} by {override.author} "
                f"{ago(override.at, found.now)}, {end}: {override.reason}"
            ),
        )
    if found.penalties != Penalties():
        yield "held against it", _penalties(found.penalties)
    if found.in_flight or found.capacity is not None:
        most = "any number" if found.capacity is None else str(found.capacity)
        yield "reserved", f"{found.in_flight} of {most}"


def _beat(found: Explanation) -> str:
    text = f"{found.beat_secs_ago or 0:.1f} s ago"
    secs = found.deadline_in_secs
    if secs is None:
        return f"{text}, no deadline"
    if secs < 0:
        return f"{text}, deadline passed {-secs:.1f} s ago"
    return f"{text}, deadline in {secs:.1f} s"


def _penalties(found: Penalties) -> str:
    parts = {
        "failures in a row": found.failures_in_a_row,
        f"failed of {found.calls:g} calls": found.failed,
        "ejections in a row": found.ejections_in_a_row,
        "flapping": found.flapping,
    }
    return ", ".join(f"{what}: {value:g}" for what, value in parts.items() if value)


def _of_model(found: ModelExplanation) -> Iterator[Line]:
    yield from _common(found)
    if found.protected:
        yield (
            "protected",
            f"{found.protected} are past their deadline, and not judged by it now",
        )


def _instances(found: ModelExplanation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ADDRESS", "WORK", "WHY"):
        table.add_column(heading, overflow="fold")
    for one in found.instances:
        reason = "[green]yes[/]"
        if one.reason is not None:
            reason = f"[red]{one.reason.replace('_', ' ')}[/]"
        host = f"[{one.host}]" if ":" in one.host else one.host
        table.add_row(shown(f"{host}:{one.port}"), reason, shown(one.because))
    return table


def _transitions(found: Explanation | ModelExplanation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("WHEN", "WHAT", "WHY", "BY"):
        table.add_column(heading, overflow="fold")
    for one in found.transitions:
        why, by = one.cause, one.actor
        if one.override is not None:
            why = f"{one.override.name}: {why}"
            if one.kind is Kind.OVERRIDDEN:
                why = f"{one.override.name}: {one.override.reason}"
                by = one.override.author
        elif one.reason and one.cause == "readiness":
            why = one.reason
        kind = one.kind.replace("_", " ")
        table.add_row(ago(one.at, found.now), kind, shown(why), shown(by))
    if found.looked_back_to is not None:
        table.add_row(
            ago(found.looked_back_to, found.now), "(no further looked back)", "", ""
        )
    return table
