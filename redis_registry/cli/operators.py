"""The commands of operators: ``override``, ``overrides``, ``clear-override``, ``alias``, ``aliases``."""

from __future__ import annotations

from typing import Annotated

import typer

from redis_registry.cli.common import NAMESPACE, URL, Namespace, Url, place, reading
from redis_registry.cli.tables import aliases_table, console, overrides_table
from redis_registry.wire.overrides import Override, Selector

__all__ = ["alias", "aliases", "clear_override", "override", "overrides"]

_Author = Annotated[str | None, typer.Option(help="Who decides; by default user@host.")]
_AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]


def _labels(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(
                f"{text!r} is not NAME=VALUE", param_hint="--label"
            )
        found[name] = value
    return found


def override(
    model: Annotated[
        str | None, typer.Argument(help="A model's name, or a pattern: 'llama*'.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST[:PORT]]", help="Where; the host may be a pattern."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, in plain words.")] = "",
    enable: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Whether they take new work."),
    ] = None,
    drain: Annotated[
        bool | None,
        typer.Option(
            "--drain/--no-drain",
            help="They finish what they have; or: no other override drains them.",
        ),
    ] = None,
    healthy: Annotated[
        bool | None,
        typer.Option(
            "--healthy/--unhealthy", help="They count as alive, or dead, in any case."
        ),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Their share of new work; 0: none.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Metadata; zone=... says where they run."
        ),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Those of this zone, or of a pattern.")
    ] = None,
    expires_secs: Annotated[
        float | None, typer.Option("--expires", help="It ends by itself, in seconds.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Replaces the override of that name.")
    ] = None,
    author: _Author = None,
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
) -> None:
    """Decide about instances, over what they say themselves, until it is cleared or ends.

    redis-registry override llama3@llm 10.0.0.7:8000 --drain --reason "new disk" --expires 3600
    """
    host, port = place(address)
    labels = _labels(label or [])
    with reading(url, namespace) as registry:
        made = registry.override(
            Selector.given(model=model, host=host, port=port, zone=zone),
            enabled=enable,
            draining=drain,
            weight=weight,
            healthy=healthy,
            labels=labels,
            author=author,
            reason=reason,
            expires_secs=expires_secs,
            name=name,
        )
    typer.echo(_told(made))


def _told(made: Override) -> str:
    until = f" until {made.expires:%Y-%m-%d %H:%M:%S} UTC" if made.expires else ""
    return f"{made.name}: {made.selector}{until}"


def overrides(
    url: Url = URL, namespace: Namespace = NAMESPACE, as_json: _AsJson = False
) -> None:
    """Show the overrides in force: what, by whom, why and until when."""
    with reading(url, namespace) as registry:
        now = registry.status()[0].now
        found = registry.overrides()
    if as_json:
        for item in found:
            typer.echo(item.model_dump_json())
    elif found:
        console().print(overrides_table(found, now))
    else:
        typer.echo("no overrides")


def clear_override(
    name: Annotated[str, typer.Argument(help="The override's name.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    author: _Author = None,
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
) -> None:
    """Clear an override: what the instances say of themselves counts again."""
    with reading(url, namespace) as registry:
        cleared = registry.clear_override(name, author=author, reason=reason)
    if not cleared:
        typer.echo(f"redis-registry: there is no override {name!r}", err=True)
        raise typer.Exit(1)


def alias(
    name: Annotated[str, typer.Argument(metavar="ALIAS")],
    model: Annotated[
        str | None, typer.Argument(help="The model that it stands for.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove it instead.")
    ] = False,
    author: _Author = None,
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
) -> None:
    """Have reads of one name answer with another model's instances, from one moment on."""
    if remove == (model is not None):
        raise typer.BadParameter("give a MODEL, or --remove", param_hint="MODEL")
    with reading(url, namespace) as registry:
        if model is not None:
            made = registry.set_alias(name, model, author=author)
            typer.echo(f"{made.alias} -> {made.model_name}")
        elif not registry.remove_alias(name, author=author):
            typer.echo(f"redis-registry: there is no alias {name!r}", err=True)
            raise typer.Exit(1)


def aliases(
    url: Url = URL, namespace: Namespace = NAMESPACE, as_json: _AsJson = False
) -> None:
    """Show the aliases, with who pointed them and when."""
    with reading(url, namespace) as registry:
        now = registry.status()[0].now
        found = registry.aliases()
    if as_json:
        for item in found:
            typer.echo(item.model_dump_json())
    elif found:
        console().print(aliases_table(found, now))
    else:
        typer.echo("no aliases")
