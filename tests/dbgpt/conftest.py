"""Fixtures of the DB-GPT tests; run.sh knows how to run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import DBGPT, SERVE, Controller, guide_block

from redis_registry.embedded import EmbeddedServer

for name in [name for name in os.environ if name.startswith("REDIS_REGISTRY_")]:
    del os.environ[name]

OWN_TESTS = os.environ["DBGPT_OWN_TESTS"]

Run = Callable[[Callable[[int], list[str]]], Controller]
Serve = Callable[..., Controller]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--expect-own",
        type=int,
        help="fail unless exactly that many of DB-GPT's own tests ran and passed",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        code = getattr(getattr(item, "function", None), "__code__", None)
        if code is not None and code.co_filename == OWN_TESTS:
            item.user_properties.append(("dbgpt", "own"))


def _own_passed(config: pytest.Config) -> int:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    return sum(
        report.when == "call" and ("dbgpt", "own") in report.user_properties
        for report in reporter.stats.get("passed", [])
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A changed archive, or a test that was skipped, must not look like success."""
    expected = session.config.getoption("--expect-own")
    if expected is not None and _own_passed(session.config) != expected:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    expected = config.getoption("--expect-own")
    if expected is not None:
        terminalreporter.write_line(
            f"DB-GPT's own registry tests: {_own_passed(config)} of {expected} passed"
        )


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Every test has the server to itself."""
    return request.node.name[-128:]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Starts controllers; none outlives the test."""
    started: list[Controller] = []

    def start(command: Callable[[int], list[str]]) -> Controller:
        controller = Controller(command, tmp_path_factory.mktemp("controller"))
        started.append(controller)
        controller.start()
        return controller

    yield start
    for controller in started:
        controller.kill()


@pytest.fixture
def serve(run: Run, server: EmbeddedServer, namespace: str) -> Serve:
    """Starts replicas of ``redis-registry serve``, from the main environment."""

    def start(*, interval: float = 1, timeout: float = 60) -> Controller:
        return run(
            lambda port: [
                *(str(SERVE), "serve", "--url", server.url, "--namespace", namespace),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--heartbeat-interval-secs", str(interval)),
                *("--heartbeat-timeout-secs", str(timeout)),
            ]
        )

    return start


@pytest.fixture
def served(serve: Serve) -> Controller:
    return serve()


@pytest.fixture
def theirs(run: Run, tmp_path: Path) -> Controller:
    """DB-GPT's own controller with its embedded registry."""

    def command(port: int) -> list[str]:
        config = tmp_path / "theirs.toml"
        config.write_text(
            f'[service.model.controller]\nhost = "127.0.0.1"\nport = {port}\n'
        )
        return [str(DBGPT), "start", "controller", "-c", str(config)]

    return run(command)


@pytest.fixture
def hooked(
    run: Run, tmp_path: Path, server: EmbeddedServer, namespace: str
) -> Controller:
    """DB-GPT's own controller, put on Redis by the guide's hook."""

    def command(port: int) -> list[str]:
        config = tmp_path / "hooked.toml"
        text = guide_block(
            "toml",
            "integrations.dbgpt.install",
            host='"127.0.0.1"',
            port=str(port),
            heartbeat_interval_secs="1",
            heartbeat_timeout_secs="2",
            url=f'"{server.url}"',
            namespace=f'"{namespace}"',
        )
        config.write_text(text)
        return [str(DBGPT), "start", "controller", "-c", str(config)]

    return run(command)


@pytest.fixture
def launched(
    run: Run, tmp_path: Path, server: EmbeddedServer, namespace: str
) -> Controller:
    """DB-GPT's own controller, started by the guide's launcher."""

    def command(port: int) -> list[str]:
        script = tmp_path / "launcher.py"
        text = guide_block(
            "python",
            "initialize_controller",
            host='"127.0.0.1"',
            port=str(port),
            url=f'"{server.url}"',
            namespace=f'"{namespace}"',
        )
        script.write_text(text)
        return [sys.executable, str(script)]

    return run(command)


@pytest.fixture(params=["served", "hooked"])
def ours(request: pytest.FixtureRequest) -> Controller:
    """This registry in the place of DB-GPT's: under our HTTP side, and under theirs."""
    controller: Controller = request.getfixturevalue(request.param)
    return controller


@pytest.fixture(params=["served", "hooked", "launched"])
def each_of_ours(request: pytest.FixtureRequest) -> Controller:
    """Each way of the guide to put it there."""
    controller: Controller = request.getfixturevalue(request.param)
    return controller
