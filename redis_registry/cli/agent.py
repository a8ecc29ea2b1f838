"""``redis-registry agent``: the command line of the sidecar."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from redis_registry.cli.common import (
    NAMESPACE,
    URL,
    LogFormat,
    LogLevel,
    Namespace,
    Url,
    log_as_asked,
    told,
)

__all__ = ["EXIT_CODES", "agent"]

_HEALTH, _LOAD, _END = "Health", "Load", "Leaving"

EXIT_CODES = """Ends with the command's own exit code (128 + n if signal n ended it), or with 2 bad
options, 68 a host can't be resolved, 69 never healthy, 73 the port is in use, 75 a newer worker
has the address, 126 not executable, 127 no such command; then nothing is left registered."""


def agent(
    model: Annotated[
        str, typer.Option(help="The model it serves, as name@worker_type for DB-GPT.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND ...]",
            help="What to run; nothing: adopt a server that runs already.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to announce; by default the one this host speaks to the registry from."
        ),
    ] = None,
    url: Url = URL,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            envvar="REDIS_REGISTRY_CONTROLLERS",
            help="Announce through this controller instead of --url; may be repeated.",
        ),
    ] = None,
    namespace: Namespace = NAMESPACE,
    heartbeat_timeout_secs: Annotated[
        float,
        typer.Option(
            envvar="REDIS_REGISTRY_HEARTBEAT_TIMEOUT_SECS",
            help="Silence after which it counts as dead.",
        ),
    ] = 60.0,
    weight: Annotated[float, typer.Option(help="Its share of new work.")] = 1.0,
    zone: Annotated[str | None, typer.Option(help="Where it runs.")] = None,
    serves: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name under which it takes work, say of an adapter; may be repeated."
        ),
    ] = None,
    any_address: Annotated[
        bool,
        typer.Option(
            "--any-address", help="Don't refuse an address that others can't reach."
        ),
    ] = False,
    health: Annotated[
        str | None,
        typer.Option(
            help="http://host:port/path, tcp://host:port or a command; by default a connection "
            "to the announced address.",
            rich_help_panel=_HEALTH,
        ),
    ] = None,
    probe_interval_secs: Annotated[
        float,
        typer.Option(
            min=0.01, help="From one probe to the next.", rich_help_panel=_HEALTH
        ),
    ] = 2.0,
    probe_timeout_secs: Annotated[
        float,
        typer.Option(
            min=0.01, help="Longest wait for its answer.", rich_help_panel=_HEALTH
        ),
    ] = 2.0,
    failures: Annotated[
        int,
        typer.Option(
            min=1,
            help="So many in a row make it not ready; a refused connection counts at once.",
            rich_help_panel=_HEALTH,
        ),
    ] = 2,
    startup_budget_secs: Annotated[
        float,
        typer.Option(
            min=0,
            help="Not healthy within it: marked as failed, stopped, removed.",
            rich_help_panel=_HEALTH,
        ),
    ] = 600.0,
    progress_timeout_secs: Annotated[
        float | None,
        typer.Option(
            help="Work in flight and no progress for so long: wedged (needs --metrics).",
            rich_help_panel=_HEALTH,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="URL of Prometheus metrics; those of vLLM, SGLang, TGI and llama.cpp are known.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    in_flight_metric: Annotated[
        str | None,
        typer.Option(
            help="Another server's gauge of requests in work.", rich_help_panel=_LOAD
        ),
    ] = None,
    queued_metric: Annotated[
        str | None,
        typer.Option(
            help="Another server's gauge of requests that wait.", rich_help_panel=_LOAD
        ),
    ] = None,
    drain_timeout_secs: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long to wait for work in flight (needs --metrics).",
            rich_help_panel=_END,
        ),
    ] = 30.0,
    settle_secs: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long to wait at least: requests may be on their way.",
            rich_help_panel=_END,
        ),
    ] = 1.0,
    stop_timeout_secs: Annotated[
        float,
        typer.Option(
            min=0,
            help="From SIGTERM of the command to SIGKILL of its group.",
            rich_help_panel=_END,
        ),
    ] = 30.0,
    log_format: LogFormat = "console",
    log_level: LogLevel = "info",
) -> None:
    """Make any server a registered worker: start or adopt it, announce it, watch it, drain it.

    It is listed as starting, becomes ready when its probe is green, is not ready while it
    fails, and on SIGTERM finishes what it has before it is stopped.

    redis-registry agent --model llama3@llm --port 8000 --health http://127.0.0.1:8000/health
    -- vllm serve ...
    """
    try:
        from redis_registry.agent.command import agent_of  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        typer.echo(
            f"redis-registry: {error.name} is not installed: pip install 'redis-registry[agent]'",
            err=True,
        )
        raise typer.Exit(2) from error
    log_as_asked(log_format, log_level)
    fields: dict[str, object] = {
        "model_name": model,
        "port": port,
        "weight": weight,
        "zone": zone,
        "serves": serves or [],
    }
    with told():
        code = asyncio.run(
            agent_of(
                url=url,
                namespace=namespace,
                controllers=[
                    one for many in controller or [] for one in many.split(",")
                ],
                heartbeat_timeout_secs=heartbeat_timeout_secs,
                host=host,
                fields=fields,
                command=command or [],
                health=health,
                in_flight_metric=in_flight_metric,
                queued_metric=queued_metric,
                any_address=any_address,
                probe_interval_secs=probe_interval_secs,
                probe_timeout_secs=probe_timeout_secs,
                failures=failures,
                startup_budget_secs=startup_budget_secs,
                progress_timeout_secs=progress_timeout_secs,
                metrics=metrics,
                drain_timeout_secs=drain_timeout_secs,
                settle_secs=settle_secs,
                stop_timeout_secs=stop_timeout_secs,
            )
        )
    raise typer.Exit(code)
