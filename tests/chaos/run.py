"""A run: the company is cast, a plot befalls them, and when it is calm all must agree again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redis_registry import ModelInstance, RegistryError, SyncModelRegistry
from tests.chaos.actor import essence
from tests.chaos.judge.answers import done_since, duties
from tests.chaos.notebook import Note
from tests.chaos.stage import MODELS, Stage
from tests.helpers import Contents, Store, connect

__all__ = ["Plot", "perform"]

Plot = Callable[[Stage], None]

SETTLE_SECS = 20.0
"""So long after the last fault everything must have come back; most of it does in two timeouts."""


def perform(stage: Stage, plot: Plot) -> None:
    """Play a plot on a stage, and see everything back in order.

    What goes wrong is noted, for the judge to read with all the rest.
    """
    with stage:
        stage.cast()
        try:
            _await_all(stage)
            plot(stage)
            stage.calm_at = time.monotonic()
            stage.book.write("calm")
            _heal(stage)
            _settle(stage)
        except Exception as error:  # noqa: BLE001  part of the history
            stage.book.write("broken plot", why=f"{type(error).__name__}: {error}")
        for player in list(stage.players.values()):
            if player.runs:
                player.leave()
            elif not player.gone and (code := player.process.poll()) is not None:
                stage.book.write("ended by itself", player=player.name, code=code)
        _look_into(stage)


def _heal(stage: Stage) -> None:
    """End every fault that still lasts; the dead among the players stay dead."""
    for player in stage.players.values():
        if player.paused and not player.gone:
            player.resume()
        player.reconnect()
    for server in stage.servers:
        if not server.alive:
            server.resume() if _stopped(server) else server.start()
    if stage.cluster is not None:
        stage.cluster.await_well()


def _stopped(server: Any) -> bool:
    return server._process is not None and server._process.poll() is None


def _registry(stage: Stage) -> SyncModelRegistry:
    settings: dict[str, Any] = stage.settings | {"operation_timeout_secs": 15.0}
    return SyncModelRegistry.from_url(stage.url, **settings)


def _expected(stage: Stage) -> set[tuple[str, str]]:
    """Identity and incarnation of everybody whose process runs."""
    return {
        (note["identity"], note["incarnation"] or "")
        for player in stage.those("worker")
        for note in stage.notes(player)
        if note["what"] == "announced"
    }


def _healthy(held: list[ModelInstance]) -> set[tuple[str, str]]:
    return {
        (f"{i.model_name}:{i.host}:{i.port}", i.incarnation or "")
        for i in held
        if i.healthy and i.readiness == "ready"
    }


def _await_all(stage: Stage) -> None:
    """Wait until everybody is on."""
    with _registry(stage) as registry:

        def there() -> bool:
            announced = [
                note
                for player in stage.those("worker")
                for note in stage.notes(player)
                if note["what"] == "announced"
            ]
            each = (len(MODELS) + 1) * stage.company.workers
            healthy = _healthy(registry.get_all_model_instances())
            picked = all(
                any(n["what"] == "pick" and n["picked"] for n in stage.notes(p))
                for p in stage.those("router")
            )
            return len(announced) == each and _expected(stage) <= healthy and picked

        what = "all workers are listed, and routers find somebody"
        stage.until(there, what, within_secs=60.0)
    stage.book.write("all there")


def _settle(stage: Stage) -> None:
    """Wait until Redis, views and watches agree on who lives."""
    end = time.monotonic() + SETTLE_SECS
    why = "no answer"
    with _registry(stage) as registry:
        while time.monotonic() < end:
            try:
                places = [(s.epoch, s.revision) for s in registry.status()]
                held = registry.get_all_model_instances()
                moved = places != [(s.epoch, s.revision) for s in registry.status()]
            except RegistryError as error:
                why = str(error)
                continue
            truth = {f"{i.model_name}:{i.host}:{i.port}": essence(i) for i in held}
            why = "it moves on" if moved else _unlike(_healthy(held), _expected(stage))
            if not why:
                asked = time.monotonic()
                for player in stage.those("router"):
                    player.order("dump")
                time.sleep(0.15)
                why = _disagreement(stage, truth, places, asked)
            why = why or _idle(stage)
            if not why:
                stage.book.write("truth", held=truth, places=places)
                return
            time.sleep(0.1)
    stage.book.write("unsettled", why=f"not within {SETTLE_SECS:g} s: {why}")


def _unlike(found: set[tuple[str, str]], wanted: set[tuple[str, str]]) -> str:
    if found == wanted:
        return ""
    return (
        f"healthy but dead: {sorted(found - wanted)}, missing: {sorted(wanted - found)}"
    )


def _disagreement(
    stage: Stage, truth: dict[str, str], places: list[tuple[str, int]], asked: float
) -> str:
    for player in [*stage.those("router"), *stage.those("controller")]:
        notes = stage.notes(player)
        if player.role == "router":
            views = [n for n in notes if n["what"] == "view" and n["at"] > asked]
            if not views or views[-1]["held"] != truth or views[-1]["stale"]:
                shown = views[-1]["held"] if views else None
                return f"the view of {player.name} shows {shown}, Redis {truth}"
        last = _last_places(notes)
        for partition, place in enumerate(places):
            if place[1] and last.get(partition) != tuple(place):
                return f"the watch of {player.name} is at {last}, Redis at {places}"
    return ""


def _idle(stage: Stage) -> str:
    """Who has not done all its work again since it is calm."""
    for player in stage.players.values():
        if player.runs:
            due = duties(player.role, served=bool(stage.those("worker")))
            missing = due - done_since(stage.notes(player), stage.calm_at)
            if missing:
                return f"{player.name} does not {sorted(missing)}"
    return ""


def _last_places(notes: list[Note]) -> dict[int, tuple[str, int]]:
    return {
        n["partition"]: (n["epoch"], n["rev"]) for n in notes if n["what"] == "event"
    }


def _look_into(stage: Stage) -> None:
    """Whether all parts of what Redis holds agree, on every primary."""
    for server in stage.servers:
        raw = connect(server.url)
        try:
            if server.info("replication")["role"] == "master":
                for partition in range(stage.partitions):
                    stage.book.write(
                        "contents",
                        port=server.port,
                        partition=partition,
                        wrong=_wrong_in(raw, f"rr:{{default/{partition}}}:"),
                    )
        except Exception as error:  # noqa: BLE001  part of the history
            stage.book.write("broken plot", why=f"looking into {server.url}: {error!r}")
        finally:
            raw.close()


def _wrong_in(raw: Any, base: str) -> str:
    store = Store(raw)
    store.base = base
    keys = [key.decode() for key in raw.keys("*") if key.decode().startswith(base)]
    try:
        found = store._all(keys)
        Contents({key.removeprefix(base): value for key, value in found}).check()
    except AssertionError as error:
        return str(error)
    return ""
