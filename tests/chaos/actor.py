"""One process of a run: ``python -m tests.chaos.actor ROLE …``; its notebook tells what it did and saw.

Lines of JSON on its standard input are orders: see :meth:`Actor.obey`. SIGTERM makes it leave.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from redis_registry import (
    Event,
    ModelInstance,
    OutOfMemory,
    RedisModelRegistry,
    RegistryError,
    View,
    Watch,
)
from tests.chaos.failpoints import Failpoints
from tests.chaos.notebook import Note, Notebook
from tests.chaos.recording import record_calls

__all__ = ["HOST", "essence", "event_note"]

HOST = "10.0.0.1"
PULSE_SECS = 0.03
STALL_SECS = 0.12
"""A process that did not run for so long is noted as having stood still."""

READ_SECS = 0.1
PICK_SECS = 0.03
PICKS_NOTED_SECS = 0.2


def essence(item: ModelInstance) -> str:
    """What events tell of an instance, all but what heartbeats move; one text, to be compared."""
    kept = item.model_dump(mode="json", exclude={"last_heartbeat", "load", "state"})
    if not item.healthy:
        # The event of a flip leaves out what was said of readiness, and since when; with a clock that
        # was put back meanwhile that is later than the flip.
        del kept["since"]
    return json.dumps(kept, sort_keys=True)


def _json(item: ModelInstance | None) -> str | None:
    return None if item is None else item.model_dump_json()


def event_note(event: Event) -> Note:
    """An event in the words of a notebook."""
    snapshot = event.snapshot
    return {
        "partition": event.partition,
        "epoch": event.epoch,
        "rev": event.revision,
        "kind": str(event.kind),
        "subject": event.subject,
        "cause": event.cause,
        "actor": event.actor,
        "time": event.at.isoformat(),
        "instance": _json(event.instance),
        "before": _json(event.before),
        "snapshot": None if snapshot is None else [_json(item) for item in snapshot],
    }


class Actor:
    """What all roles share.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.book = Notebook(Path(options.notes), options.name)
        self.points = Failpoints(self.book)
        self.chance = random.Random(options.seed)
        self.models: list[str] = options.models.split(",")
        self.stop = asyncio.Event()
        self.views: list[View] = []
        self.registry = RedisModelRegistry.from_url(
            options.url,
            run_checker=options.role == "controller",
            **json.loads(options.settings),
        )
        record_calls(self.book, self.points)

    # --- orders and signs of life -----------------------------------------------------------------

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take orders, in a thread, for as long as whoever gives them lives."""
        for line in sys.stdin:
            loop.call_soon_threadsafe(self.obey, json.loads(line))
        loop.call_soon_threadsafe(self.stop.set)

    def obey(self, order: Note) -> None:
        """Do as told: ``arm`` a failpoint, ``block`` the event loop, ``dump`` the views."""
        match order.pop("do"):
            case "arm":
                self.points.arm(**order)
            case "disarm":
                self.points.disarm()
            case "block":
                self.book.write("blocked", secs=order["secs"])
                time.sleep(order["secs"])
            case "dump":
                for view in self.views:
                    held = {_subject(i): essence(i) for i in view.instances()}
                    self.book.write(
                        "view", held=held, stale=view.stale, place=view.position
                    )
            case unknown:
                raise ValueError(unknown)

    def pulse(self) -> None:
        """Note in a thread of its own when this process stood still: then nothing was its fault."""
        last = time.monotonic()
        noted = 0.0
        while True:
            time.sleep(PULSE_SECS)
            now = time.monotonic()
            if now - last > STALL_SECS:
                self.book.write("stall", begun=last)
            elif now - noted > 1.0:
                noted = now
                self.book.write("pulse")
            last = now

    async def loop_pulse(self) -> None:
        """The same for the event loop, in which checkers, views and callers live."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(PULSE_SECS)
            now = time.monotonic()
            if now - last > STALL_SECS:
                self.book.write("stall", begun=last, of="loop")
            last = now

    async def main(self) -> None:
        """Play the role until it is told to leave."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        threading.Thread(target=self.listen, args=[loop], daemon=True).start()
        threading.Thread(target=self.pulse, daemon=True).start()
        lag = loop.create_task(self.loop_pulse())
        role = {"worker": self.work, "controller": self.control, "router": self.route}
        self.book.write("born", role=self.options.role, models=self.models)
        try:
            await role[self.options.role]()
        except OutOfMemory:
            self.book.write(
                "refused"
            )  # told clearly, as it must be; somebody else starts it again
            raise
        finally:
            lag.cancel()
            self.book.write("left")

    async def until_stopped(self, *loops: Any) -> None:
        """Run these together; one that ends on an error is noted as dead, which convicts it."""
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        for task in tasks:
            task.add_done_callback(self._ended)
        await self.stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.book.write("dead loop", why=repr(error))

    # --- the roles --------------------------------------------------------------------------------

    async def work(self) -> None:
        """Announce an instance of each model, and beat for one that has no incarnation."""
        port = self.options.port
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.registry)
            for model in self.models:
                item = ModelInstance(model_name=model, host=HOST, port=port)
                life = self.registry.announce(
                    item, any_address=True, drain_timeout_secs=0.2
                )
                announced = await stack.enter_async_context(life)
                self.book.write(
                    "announced",
                    identity=_subject(item),
                    incarnation=announced.instance.incarnation,
                )
                await announced.ready()
                if self.stop.is_set():
                    return
            plain = ModelInstance(
                model_name=self.models[0], host=HOST, port=port + 100, weight=2.0
            )
            self.book.write("announced", identity=_subject(plain), incarnation="")
            await self.until_stopped(self._beat(plain))
            self.book.write("leaving")

    async def _beat(self, item: ModelInstance) -> None:
        interval = self.registry.settings.heartbeat_timeout_secs / 4
        while True:
            try:
                await self.registry.send_heartbeat(item)
            except RegistryError as error:
                self.book.write("beat failed", why=str(error)[:200])
            await asyncio.sleep(interval * self.chance.uniform(0.8, 1.0))

    async def control(self) -> None:
        """Sweep, watch and read."""
        async with self.registry as registry:
            await self.until_stopped(self._watch(registry), self._read(registry))

    async def route(self) -> None:
        """Choose from a view, and reserve; watch and read too."""
        async with self.registry as registry, registry.view(wait_secs=0) as view:
            self.views.append(view)
            await self.until_stopped(
                self._pick(view),
                self._reserve(registry),
                self._watch(registry),
                self._read(registry),
            )

    async def _watch(self, registry: RedisModelRegistry) -> None:
        """Now and then a new watch goes on where the one before was."""
        after: str | None = None
        number = 0
        while True:
            number += 1
            watch = registry.watch(after=after)
            self.book.write("watch", number=number, after=after)
            lives = self.chance.uniform(3, 8)
            try:
                async with asyncio.timeout(lives), watch:
                    await self._follow(watch, number)
            except TimeoutError:
                pass
            after = watch.position

    async def _follow(self, watch: Watch, number: int) -> None:
        async for event in watch:
            self.book.write("event", watch=number, **event_note(event))

    async def _read(self, registry: RedisModelRegistry) -> None:
        while True:
            model = self.chance.choice(self.models)
            begun = time.monotonic()
            try:
                found = await registry.get_all_instances(model)
            except RegistryError as error:
                self.book.write("read failed", begun=begun, why=str(error)[:200])
            else:
                states = {
                    _subject(item): [
                        item.incarnation or "",
                        str(item.state),
                        item.healthy,
                    ]
                    for item in found
                }
                self.book.write("read", begun=begun, model=model, states=states)
            await asyncio.sleep(READ_SECS)

    async def _pick(self, view: View) -> None:
        shown: dict[str, tuple[float, Any]] = {}
        while True:
            for model in self.models:
                before = time.monotonic()
                picked = view.select(model, "round_robin")
                told = (
                    None
                    if picked is None
                    else [_subject(picked), picked.incarnation or ""]
                )
                last = shown.get(model, (0.0, None))
                if told is None or before - last[0] > PICKS_NOTED_SECS:
                    shown[model] = (before, told)
                    self.book.write(
                        "pick",
                        model=model,
                        picked=told,
                        stale=view.stale,
                        state=picked and str(picked.state),
                        age=min(view.staleness_secs, 1e6),
                    )
            await asyncio.sleep(PICK_SECS)

    async def _reserve(self, registry: RedisModelRegistry) -> None:
        while True:
            model = self.chance.choice(self.models)
            begun = time.monotonic()
            told: Note = {}
            try:
                async with registry.reserve(model) as reservation:
                    told = {"picked": _subject(reservation.instance)}
                    await asyncio.sleep(self.chance.uniform(0, 0.05))
            except RegistryError as error:
                told["error"] = type(error).__name__
                told["why"] = str(error)[:200]
            self.book.write("reserve", model=model, begun=begun, **told)
            await asyncio.sleep(READ_SECS)


def _subject(item: ModelInstance) -> str:
    return f"{item.model_name}:{item.host}:{item.port}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("worker", "controller", "router"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--port", type=int, default=1)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--settings", default="{}")
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    asyncio.run(Actor(_options()).main())
