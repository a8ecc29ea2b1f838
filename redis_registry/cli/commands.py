"""The commands: ``agent``, ``serve``, ``list``, ``status``, ``version``, ``explain``, and the operators'."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from redis_registry import __version__
from redis_registry.cli.agent import EXIT_CODES, agent
from redis_registry.cli.common import (
    NAMESPACE,
    URL,
    LogFormat,
    LogLevel,
    Namespace,
    Url,
    log_as_asked,
    reading,
    told,
)
from redis_registry.cli.explain import explain
from redis_registry.cli.operators import (
    alias,
    aliases,
    clear_override,
    override,
    overrides,
)
from redis_registry.cli.tables import ago, console, instances_table
from redis_registry.settings import RegistrySettings

__all__ = ["app"]

T = TypeVar("T")

_FIELDS = RegistrySettings.model_fields
_HEARTBEAT_INTERVAL_SECS: float = _FIELDS["heartbeat_interval_secs"].default
_HEARTBEAT_TIMEOUT_SECS: float = _FIELDS["heartbeat_timeout_secs"].default
_FORGET_AFTER_SECS: float = _FIELDS["forget_after_secs"].default


app = typer.Typer(
    help="A registry of model workers on Redis that tells the truth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command(epilog=EXIT_CODES, context_settings={"allow_interspersed_args": False})(
    agent
)


for command in (explain, override, overrides, clear_override, alias, aliases):
    app.command()(command)


@app.command()
def serve(
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
    host: Annotated[
        str, typer.Option(envvar="REDIS_REGISTRY_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            envvar="REDIS_REGISTRY_PORT", min=1, max=65535, help="Port to listen on."
        ),
    ] = 8000,
    known_as: Annotated[
        str,
        typer.Option(
            envvar="REDIS_REGISTRY_KNOWN_AS",
            metavar="<name,name>",
            help="Names by which clients reach it; then it answers only by these and by addresses. "
            "On a loopback address that is so in any case.",
        ),
    ] = "",
    heartbeat_interval_secs: Annotated[
        float,
        typer.Option(
            envvar="REDIS_REGISTRY_HEARTBEAT_INTERVAL_SECS",
            help="How often the checker sweeps, at the latest.",
        ),
    ] = _HEARTBEAT_INTERVAL_SECS,
    heartbeat_timeout_secs: Annotated[
        float,
        typer.Option(
            envvar="REDIS_REGISTRY_HEARTBEAT_TIMEOUT_SECS",
            help="Silence after which an instance is dead.",
        ),
    ] = _HEARTBEAT_TIMEOUT_SECS,
    forget_after_secs: Annotated[
        str,
        typer.Option(
            envvar="REDIS_REGISTRY_FORGET_AFTER_SECS",
            metavar="<float|never>",
            help="How long an unhealthy instance stays listed.",
        ),
    ] = str(_FORGET_AFTER_SECS),
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="Start a throw-away server of our own instead of using --url.",
        ),
    ] = False,
    log_format: LogFormat = "console",
    log_level: LogLevel = "info",
) -> None:
    """Run one controller replica: DB-GPT's HTTP API, the checker, health.

    Start as many as you like on one Redis; one of them sweeps, any of them answers.

    The guard and everything else is set by REDIS_REGISTRY_*: docs/reference/settings.md.
    """
    try:
        from redis_registry.http.server import serve as run  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        typer.echo(
            f"redis-registry: {error.name} is not installed: pip install 'redis-registry[server]'",
            err=True,
        )
        raise typer.Exit(2) from error
    log_as_asked(log_format, log_level)
    with told():
        settings = RegistrySettings.of(
            url=url,
            namespace=namespace,
            heartbeat_interval_secs=heartbeat_interval_secs,
            heartbeat_timeout_secs=heartbeat_timeout_secs,
            forget_after_secs=None
            if forget_after_secs == "never"
            else forget_after_secs,
        )
        names = [name.strip() for name in known_as.split(",") if name.strip()]
        _loop()(run(settings, host=host, port=port, embedded=embedded, known_as=names))


def _loop() -> Callable[[Any], Any]:
    """The runner of uvloop where there is one, else of asyncio."""
    if sys.platform == "win32":
        return asyncio.run
    import uvloop  # noqa: PLC0415  not on Windows

    return uvloop.run


@app.command("list")
def list_(
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
    model: Annotated[
        str | None, typer.Option(help="Only instances of this model.")
    ] = None,
    healthy: Annotated[
        bool, typer.Option("--healthy", help="Leave out the unhealthy.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines instead of a table.")
    ] = False,
) -> None:
    """Show the instances, each judged by its deadline at this moment."""
    with reading(url, namespace) as registry:
        now = registry.status()[0].now
        if model is None:
            found = registry.get_all_model_instances(healthy_only=healthy)
        else:
            found = registry.get_all_instances(model, healthy_only=healthy)
    if as_json:
        for instance in found:
            typer.echo(instance.model_dump_json(exclude={"remove_from_registry"}))
        return
    if not found:
        typer.echo("no instances" if model is None else f"no instances of {model!r}")
        return
    console().print(instances_table(found, now))


@app.command()
def status(
    url: Url = URL,
    namespace: Namespace = NAMESPACE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what the registry knows of itself: lease, recovery, guard, counts."""
    with reading(url, namespace) as registry:
        partitions = registry.status()
    if as_json:
        told = [
            {name: getattr(item, name) for name in item.__slots__}
            for item in partitions
        ]
        typer.echo(json.dumps(told, default=str))
        return
    for number, item in enumerate(partitions):
        swept = (
            "never"
            if item.swept_secs_ago is None
            else f"{item.swept_secs_ago:.1f} s ago"
        )
        lines = [
            f"partition  {number} of {len(partitions)}, revision {item.revision}, epoch {item.epoch}",
            f"instances  {item.living} living, {item.overdue} overdue, {item.unhealthy} unhealthy; {item.models} models",
            f"checker    {item.lease_holder or 'nobody'} (term {item.lease_token}), swept {swept}",
        ]
        if item.recovering_until is not None:
            left = (item.recovering_until - item.now).total_seconds()
            lines.append(
                f"recovery   after {item.recovery_cause}: nobody is flipped for {left:.0f} s more"
            )
        lines += [
            f"guard      holds {hold.scope!r} since {ago(hold.since, item.now)}"
            for hold in item.holds
        ]
        if item.evicts:
            lines.append(
                f"memory     {item.evicts}: Redis may throw living instances away; set noeviction"
            )
        typer.echo("\n".join(lines))


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(__version__)
