"""``--keep``: the demo runs on, says what to try, and tells what becomes of it."""

from __future__ import annotations

import os
import shutil
import sys
from http.client import HTTPException
from pathlib import Path

from examples.pause import Interrupted, pause
from examples.stage import Child, Controller, Stage
from examples.timeline import Timeline
from examples.watcher import POLL_SECS, ask

__all__ = ["keep_running"]

_WIDTH = 74
"""Of a command; the remark follows."""


def keep_running(stage: Stage, tell: Timeline) -> None:
    """Say what to try, then every change, until Ctrl-C."""
    _say_what_to_try(stage, tell)
    known: dict[Controller, dict[int, bool]] = {}
    running = [child for child in stage.children if not child.ended]
    try:
        while True:
            _say_ends(running, tell)
            for controller in stage.controllers:
                _say_changes(controller, known, stage, tell)
            pause(POLL_SECS)
    except Interrupted:
        tell.say("\nAll processes have been ended.")


def _say_what_to_try(stage: Stage, tell: Timeline) -> None:
    name, python, url = _beside("redis-registry"), _beside("python"), stage.server.url
    first, second = stage.controllers
    worker = stage.workers[0]
    models = f"{second.url}/api/controller/models?model_name={worker.model}"
    tries = {
        f"{name} list --url {url}": "all instances",
        f"{name} status --url {url}": "who sweeps, and more",
        f"curl '{models}'": "a model, says B",
        f"curl {first.url}/api/status": "A about itself",
        f"kill -STOP {worker.pid}; sleep 5; kill -CONT {worker.pid}": "a worker freezes",
        f"kill -9 {worker.pid}": "a worker dies",
        f"{python} -m {' '.join(worker.arguments)}": "and comes back",
        f"kill -9 {first.pid}": "a controller dies",
    }
    tell.act("All of it runs on until Ctrl-C", "try in another terminal")
    for what, why in tries.items():
        tell.say(f"  [bold]{what.ljust(_WIDTH)}[/]  [dim]# {why}[/]")
    tell.say(f"The logs of all processes: {stage.home}\n")


def _beside(name: str) -> str:
    """How to call a command of this environment from here."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(beside) else os.path.relpath(beside)


def _say_ends(running: list[Child], tell: Timeline) -> None:
    for child in [child for child in running if child.ended]:
        running.remove(child)
        tell.did(f"{child.name} has ended", f"pid {child.pid}")


def _say_changes(
    controller: Controller,
    known: dict[Controller, dict[int, bool]],
    stage: Stage,
    tell: Timeline,
) -> None:
    try:
        states = ask(controller).states
    except (OSError, HTTPException):
        return  # it has ended, which has been said
    before = known.setdefault(controller, states)
    known[controller] = states
    names = {worker.port: worker.name for worker in stage.workers}
    for port, healthy in states.items():
        if before.get(port) != healthy:
            state = "[green]healthy[/]" if healthy else "[red]unhealthy[/]"
            tell.did(f"{names.get(port, port)} is {state}", f"says {controller.name}")
