"""Two controllers, six workers, one real server: watch the registry tell the truth.

python -m examples.demo           about 20 s; exit code 0 if every state was as expected
python -m examples.demo --keep    leaves it all running, for you to kill things
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from examples.keep import keep_running
from examples.pause import Interrupted, listen
from examples.stage import (
    INTERVAL_SECS,
    TIMEOUT_SECS,
    Controller,
    NotStarted,
    Stage,
    Worker,
    strip_environment,
)
from examples.timeline import Timeline
from examples.watcher import Condition, Watcher, summary
from redis_registry import SyncModelRegistry
from redis_registry.cli.tables import instances_table
from redis_registry.errors import RegistryError

PATIENCE_SECS = 10.0
"""How long a state is waited for, before the demo goes on without it."""
MOST_SECS = 50.0
"""When all waiting ends."""


class Demo:
    """The play: its acts, in the order in which they are shown."""

    def __init__(self, stage: Stage, timeline: Timeline) -> None:
        self._stage = stage
        self._tell = timeline
        self._watcher = Watcher()
        self._dead = 0

    def play(self, port: int) -> None:
        """Show everything.

        Args:
            port: The first one to try for a controller.

        Raises:
            NotStarted: A process did not come up.
            RegistryError: The server did not, or does not answer.
            Interrupted: A signal asked us to end.
        """
        self._all_start(port)
        workers = self._stage.workers
        self._worker_dies("A worker is killed", workers[0])
        leader = self._leader_dies()
        self._worker_dies(
            "A second worker is killed, with one controller left", workers[3]
        )
        self._worker_returns(workers[0])
        self._controller_returns(leader)
        self._worker_leaves(workers[5])
        self._all_agree()

    def _all_start(self, port: int) -> None:
        self._begin("Everything starts", "each of these is a process of its own")
        stage, tell = self._stage, self._tell
        stage.server.start()
        tell.did(f"server        {stage.server.url}", f"pid {stage.server.pid}")
        stage.add_controllers(port)
        for controller in stage.controllers:
            controller.start()
        for controller in stage.controllers:
            self._await_controller(controller)
        stage.add_workers()
        for worker in stage.workers:
            worker.start()
            tell.did(f"worker        {worker.name}", f"pid {worker.pid}")
        self._expect_healthy("all six workers are healthy", stage.workers)

    def _worker_dies(self, title: str, worker: Worker) -> None:
        self._begin(title, f"it falls silent, and {TIMEOUT_SECS:g} s later it is dead")
        self._watcher.alive.discard(worker)
        killed = time.monotonic()
        worker.kill()
        self._tell.did(f"kill -9 {worker.pid}  {worker.name}")
        found = self._until(
            f"{worker.name} is silent",
            lambda seen: not any(answer.healthy(worker) for answer in seen),
        )
        took = time.monotonic() - killed
        what = f"{worker.name} is unhealthy on {self._everywhere}"
        self._tell.expect(found, what, f"{took:.2f} s after the kill")
        self._expect_in_time(worker)
        self._dead += 1
        self._expect_soon(
            "a sweep has marked it in Redis, too",
            lambda seen: all(answer.flipped >= self._dead for answer in seen),
        )
        self._expect_no_false_death()

    def _expect_in_time(self, worker: Worker) -> None:
        seen = self._watcher.seen
        silence = max((answer.silence(worker) for answer in seen), default=0.0)
        most = TIMEOUT_SECS + INTERVAL_SECS
        recovery = ""
        if self._watcher.recovering:  # the registry itself was away for a moment
            most += TIMEOUT_SECS
            recovery = ", a recovery included"
        self._tell.expect(
            TIMEOUT_SECS <= silence <= most,
            f"no sooner than {TIMEOUT_SECS:g} s, no later than {most:g} s{recovery}",
            f"{silence:.2f} s after its last beat",
        )

    def _leader_dies(self) -> Controller:
        self._begin("The sweeping controller is killed", "the other has to take over")
        leader = self._leader()
        self._watcher.up.remove(leader)
        leader.kill()
        self._tell.did(f"kill -9 {leader.pid}  {leader.name}")
        self._leader()
        with self._tell.waiting("is any live worker declared dead?"):
            self._watcher.watch(TIMEOUT_SECS + INTERVAL_SECS)
        self._expect_no_false_death()
        return leader

    def _leader(self) -> Controller:
        began = time.monotonic()
        met = self._until(
            "who holds the lease?",
            lambda seen: sum(answer.leads for answer in seen) == 1,
        )
        leads = [item for item, answer in self._watcher.answers.items() if answer.leads]
        leader = (leads or self._watcher.up)[0]
        took = f"after {time.monotonic() - began:.2f} s"
        what = f"{leader.name} holds the lease: it sweeps"
        self._tell.expect(met, what, took if met else f"{self._watcher}, {took}")
        return leader

    def _worker_returns(self, worker: Worker) -> None:
        self._begin("The first worker comes back", "on the same address")
        worker.start()
        self._tell.did(f"worker        {worker.name}", f"pid {worker.pid}")
        self._dead -= 1
        self._expect_healthy(f"{worker.name} is healthy", [worker])

    def _controller_returns(self, controller: Controller) -> None:
        self._begin("The killed controller comes back", "it has nothing to catch up on")
        controller.start()
        self._await_controller(controller)
        self._expect_agreement()

    def _worker_leaves(self, worker: Worker) -> None:
        self._begin(
            "A worker is asked to stop", "it says goodbye, so nobody waits for silence"
        )
        self._watcher.alive.discard(worker)
        worker.stop()
        self._tell.did(f"kill {worker.pid}  {worker.name}")
        self._expect_soon(
            f"{worker.name} is unhealthy on {self._everywhere} at once",
            lambda seen: all(
                not answer.healthy(worker) and answer.silence(worker) < TIMEOUT_SECS
                for answer in seen
            ),
        )
        self._dead += 1

    def _all_agree(self) -> None:
        self._begin("Some seconds later", "and as `redis-registry list` shows it")
        with self._tell.waiting("does it stay like this?"):
            self._watcher.watch(TIMEOUT_SECS + INTERVAL_SECS)
        self._expect_agreement()
        answers, wrong = self._watcher.polls, self._watcher.wrong
        self._tell.expect(
            not wrong,
            "from start to end no live worker was shown dead",
            summary(wrong) or f"in all {answers} answers",
        )
        with SyncModelRegistry.from_url(self._stage.server.url) as registry:
            instances = registry.get_all_model_instances()
            self._tell.show(instances_table(instances, registry.status()[0].now))

    # What the acts are made of.

    def _begin(self, title: str, why: str) -> None:
        self._tell.act(title, why)
        self._watcher.begin()

    @property
    def _everywhere(self) -> str:
        return " and ".join(
            sorted(controller.letter for controller in self._watcher.up)
        )

    def _await_controller(self, controller: Controller) -> None:
        with self._tell.waiting(f"{controller.name} starts"):
            controller.await_answer()
        self._tell.did(f"{controller.name}  {controller.url}", f"pid {controller.pid}")
        self._watcher.up.append(controller)

    def _until(self, what: str, condition: Condition) -> bool:
        within = min(PATIENCE_SECS, MOST_SECS - self._tell.secs)
        with self._tell.waiting(what):
            return self._watcher.until(condition, within)

    def _expect_soon(self, what: str, condition: Condition) -> None:
        began = time.monotonic()
        met = self._until(what, condition)
        took = f"after {time.monotonic() - began:.2f} s"
        self._tell.expect(met, what, took if met else f"{self._watcher}, {took}")

    def _expect_healthy(self, what: str, workers: Sequence[Worker]) -> None:
        self._expect_soon(
            f"{what} on {self._everywhere}",
            lambda seen: all(
                answer.healthy(item) for answer in seen for item in workers
            ),
        )
        self._watcher.alive.update(workers)

    def _expect_no_false_death(self) -> None:
        answers, wrong = self._watcher.act
        self._tell.expect(
            not wrong,
            f"the {len(self._watcher.alive)} live workers were healthy all the time",
            summary(wrong) or f"in each of {answers} answers",
        )

    def _expect_agreement(self) -> None:
        alive = self._watcher.alive
        truth = {worker.port: worker in alive for worker in self._stage.workers}
        self._expect_soon(
            f"{self._everywhere} agree: {len(alive)} healthy, {self._dead} unhealthy",
            lambda seen: all(answer.states == truth for answer in seen),
        )


def _verdict(tell: Timeline) -> bool:
    count = tell.met + len(tell.failed)
    if tell.failed:
        tell.say(f"\n[bold red]FAILED: {len(tell.failed)} of {count} expectations[/]")
        for what in tell.failed:
            tell.say(f"  [red]{what}[/]")
        return False
    tell.say(f"\n[bold green]All {count} expectations met[/] in {tell.secs:.1f} s.")
    return True


def _play(stage: Stage, tell: Timeline, *, port: int, keep: bool) -> bool:
    tell.say("[bold]redis-registry: two controllers, six workers, one server[/]")
    tell.say(
        f"A worker beats every {INTERVAL_SECS:g} s, through either controller; "
        f"after {TIMEOUT_SECS:g} s of silence it is dead."
    )
    try:
        Demo(stage, tell).play(port)
    except (NotStarted, RegistryError) as error:
        tell.expect(met=False, what="every process runs", seen=str(error))
        keep = False
    passed = _verdict(tell)
    if not passed:
        tell.say(f"The logs of all processes: {stage.home}")
        stage.keep_logs = True
    if keep:
        keep_running(stage, tell)
    return passed


def main() -> int:
    """Show the demo; its exit code."""
    parser = argparse.ArgumentParser(description="Watch the registry tell the truth.")
    parser.add_argument("--keep", action="store_true", help="leave it all running")
    parser.add_argument(
        "--port", type=int, default=8001, help="the first one to try for a controller"
    )
    given = parser.parse_args()
    strip_environment()
    listen()
    tell = Timeline()
    try:
        with Stage() as stage:
            return 0 if _play(stage, tell, port=given.port, keep=given.keep) else 1
    except Interrupted as interrupted:
        tell.say(f"\nThe demo was {interrupted}, and all its processes with it.")
        return 128 + interrupted.number


if __name__ == "__main__":
    sys.exit(main())
