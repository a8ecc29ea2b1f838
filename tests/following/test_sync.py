"""Views and watches of the sync face: the same, for threads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from redis_registry import (
    Kind,
    RedisModelRegistry,
    RegistryClosed,
    SyncModelRegistry,
    Watch,
)
from tests.conftest import FAST, Server
from tests.helpers import instance, instances, wait_for

MODEL = "glm@llm"


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    left = [t for t in threading.enumerate() if "redis-registry views" in t.name]
    assert not left


def test_a_view_answers_any_thread(sync_registry: SyncModelRegistry) -> None:
    sync_registry.register_instance(instance(1))
    heard: list[frozenset[str]] = []
    with sync_registry.view() as view:
        view.on_change(heard.append)
        assert [item.port for item in view.instances(MODEL)] == [1]
        sync_registry.send_heartbeats(instances(5))
        wait_for(lambda: len(view.instances(MODEL)) == 5, "all are seen")
        assert view.select(MODEL) in view.instances(MODEL)
        assert view.staleness_secs < 3
        view.ready()
    assert frozenset({MODEL}) in heard


def test_readers_of_other_threads_never_see_it_torn(server: Server) -> None:
    """One thread changes, the view's writes, and four read all the time."""
    with SyncModelRegistry.from_url(server.url, **FAST) as registry:
        registry.send_heartbeats(instances(50))
        stop, wrong = threading.Event(), list[object]()

        def read() -> None:
            while not stop.is_set():
                try:
                    count = len(view.instances(MODEL))
                    if not 50 <= count <= 150:
                        wrong.append(count)
                    view.models()
                except Exception as error:  # noqa: BLE001  any would be wrong
                    wrong.append(error)

        with registry.view() as view:
            readers = [threading.Thread(target=read) for _ in range(4)]
            for reader in readers:
                reader.start()
            for port in range(51, 151):
                registry.register_instance(instance(port))
            wait_for(lambda: len(view.instances(MODEL)) == 150, "all are seen")
            stop.set()
            for reader in readers:
                reader.join()
        assert not wrong


@pytest.mark.one_partition("it follows one stream")
def test_a_watch_is_an_iterator_that_resumes(sync_registry: SyncModelRegistry) -> None:
    with sync_registry.watch() as watch:
        assert next(watch).kind is Kind.RESYNC
        sync_registry.register_instance(instance(1))
        assert next(watch).kind is Kind.REGISTERED
        position = watch.position
    sync_registry.deregister_instance(instance(1))
    with sync_registry.watch(after=position) as watch:
        assert next(watch).kind is Kind.DEREGISTERED


def test_closing_from_another_thread_ends_a_watch(server: Server) -> None:
    registry = SyncModelRegistry.from_url(server.url, **FAST)
    watch = registry.watch()
    assert next(watch).kind is Kind.RESYNC
    ended = list[BaseException]()

    def follow() -> None:
        try:
            for _ in watch:
                pass
        except BaseException as error:  # noqa: BLE001  whatever it was
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    registry.close()
    thread.join(5)
    assert isinstance(ended[0], RegistryClosed)
    with pytest.raises(RegistryClosed):
        next(watch)
    watch.close()


async def test_it_is_closed_on_a_running_loop(server: Server) -> None:
    """S3: code that is called by a loop may use the sync face, to its end."""
    with SyncModelRegistry.from_url(server.url, **FAST) as registry:
        registry.register_instance(instance(1))
        with registry.view() as view:
            assert view.instances(MODEL)


def test_closing_from_a_callback_is_refused(sync_registry: SyncModelRegistry) -> None:
    """It would wait for its own thread."""
    refused: list[BaseException] = []

    def close(_models: frozenset[str]) -> None:
        try:
            sync_registry.close()
        except RegistryClosed as error:
            refused.append(error)

    with sync_registry.view() as view:
        view.on_change(close)
        sync_registry.register_instance(instance(1))
        wait_for(lambda: refused, "it was refused")
    assert "another thread" in str(refused[0])


def test_whoever_uses_it_while_it_is_closed_is_told(server: Server) -> None:
    """Nobody waits for ever, and no thread of two registries' lives gets mixed up."""
    chance, wrong = random.Random(3), list[BaseException]()

    def use(registry: SyncModelRegistry, pause_secs: float) -> None:
        threading.Event().wait(pause_secs)  # a chance of its own, not a condition
        try:
            with registry.view() as view:
                view.instances()
            with registry.watch() as watch:
                next(watch)
        except RegistryClosed:
            pass
        except BaseException as error:  # noqa: BLE001  any other would be wrong
            wrong.append(error)

    for _ in range(30):
        registry = SyncModelRegistry.from_url(server.url, **FAST)
        pauses = [chance.uniform(0, 0.01) for _ in range(4)]
        threads = [
            threading.Thread(target=use, args=(registry, pause), daemon=True)
            for pause in pauses
        ]
        threads.append(threading.Thread(target=registry.close, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in threads), "somebody waits"
        registry.close()  # what was begun since
    assert not wrong


def run_program(url: str, code: str) -> str:
    """What a program of its own prints, which must end by itself."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, url],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert not done.stderr
    return done.stdout


FORKS = """
import os, signal, sys
from redis_registry import ModelInstance, RegistryClosed, SyncModelRegistry

registry = SyncModelRegistry.from_url(sys.argv[1])
item = ModelInstance(model_name="m", host="h", port=1)
registry.register_instance(item)

def read_on():
    with registry.view() as own, registry.watch() as changes:
        assert own.instances() and next(changes).kind == "resync"
    registry.close()

def refused():
    for call in (view.ready, lambda: next(watch)):
        try:
            call()
        except RegistryClosed as error:
            assert "fork" in str(error)
        else:
            raise AssertionError

with registry.view() as view, registry.watch() as watch:
    next(watch)
    for work in (read_on, refused, registry.close, watch.close, lambda: view.__exit__(None, None, None)):
        child = os.fork()
        if not child:
            signal.alarm(4)
            work()
            os._exit(0)
        print(os.waitpid(child, 0)[1])
    registry.deregister_instance(item)
    print(next(watch).kind)
registry.close()
"""


@pytest.mark.one_partition("it follows one stream")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes can fork")
def test_a_forked_child_begins_anew_and_leaves_the_parents_alone(
    server: Server,
) -> None:
    assert run_program(server.url, FORKS).split() == [*"00000", "deregistered"]


LEFT_OPEN = """
import sys
from redis_registry import SyncModelRegistry

def views():
    with SyncModelRegistry.from_url(sys.argv[1]).view() as view:
        yield view

kept = views()
print(next(kept).models())
"""


def test_a_view_that_is_left_open_does_not_hold_up_the_exit(server: Server) -> None:
    """Python closes the generator when the view's thread runs no more."""
    assert run_program(server.url, LEFT_OPEN)


async def test_both_faces_have_the_same_arguments() -> None:
    for name in ("watch", "view"):
        mine = getattr(RedisModelRegistry, name).__annotations__
        twin = getattr(SyncModelRegistry, name).__annotations__
        assert {k: v for k, v in mine.items() if k != "return"} == {
            k: v for k, v in twin.items() if k != "return"
        }
    assert Watch.__doc__
