"""docker-compose.yml and the Dockerfile name nothing that doesn't exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer.main

from examples.worker import arguments
from redis_registry.cli.commands import app
from redis_registry.settings import GuardSettings, RegistrySettings

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES = {"redis", "controller-a", "controller-b", "worker-1", "worker-2", "worker-3"}


def settings_names() -> set[str]:
    """Every environment name that means something to us."""
    fields = {
        f"REDIS_REGISTRY_{name.upper()}" for name in RegistrySettings.model_fields
    }
    guard = {
        f"REDIS_REGISTRY_GUARD_{name.upper()}" for name in GuardSettings.model_fields
    }
    commands = getattr(typer.main.get_command(app), "commands", {}).values()
    options = {
        str(parameter.envvar)
        for command in commands
        for parameter in command.params
        if parameter.envvar
    }
    return fields | guard | options


def compose_environment() -> dict[str, str]:
    pairs = re.findall(r"^ +(REDIS_REGISTRY_\w+): (.+)$", COMPOSE, re.MULTILINE)
    return {name: value.strip('"') for name, value in pairs}


def worker_commands() -> list[str]:
    found = re.findall(r"python /worker\.py (.+)\n +(--.+)\n", COMPOSE)
    return [" ".join(lines) for lines in found]


def compose_client() -> list[str]:
    """Docker's plugin, else Debian's older program; both check the file without an engine."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is not None:
            version = subprocess.run(
                [*command, "version"], check=False, capture_output=True
            )
            if version.returncode == 0:
                return command
    pytest.skip("neither docker's compose plugin nor docker-compose is installed")


def test_docker_compose_accepts_it() -> None:
    done = subprocess.run(
        [
            *compose_client(),
            "-f",
            str(ROOT / "docker-compose.yml"),
            "config",
            "--services",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == SERVICES


def test_it_has_a_redis_two_controllers_and_three_workers() -> None:
    services = COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    assert set(re.findall(r"^  ([\w-]+):$", services, re.MULTILINE)) == SERVICES
    assert re.findall(r'- "127\.0\.0\.1:(\d+):8000"', services) == ["8001", "8002"]


def test_the_environment_names_are_settings() -> None:
    used = set(re.findall(r"REDIS_REGISTRY_\w+", COMPOSE + DOCKERFILE)) - {
        "REDIS_REGISTRY_"
    }
    assert used
    assert used <= settings_names()


def test_the_environment_values_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in compose_environment().items():
        monkeypatch.setenv(name, value)
    settings = RegistrySettings()
    assert settings.url == "redis://redis:6379/0"
    assert settings.heartbeat_interval_secs < settings.heartbeat_timeout_secs == 15


def test_the_workers_are_called_as_they_want_to_be() -> None:
    commands = worker_commands()
    assert len(commands) == 3
    assert (ROOT / "examples/worker.py").is_file()
    assert "./examples/worker.py:/worker.py:ro" in COMPOSE
    timeout = float(compose_environment()["REDIS_REGISTRY_HEARTBEAT_TIMEOUT_SECS"])
    for command in commands:
        given = arguments().parse_args(command.split())
        assert given.host in SERVICES
        assert sorted(given.controllers.split(",")) == [
            "http://controller-a:8000",
            "http://controller-b:8000",
        ]
        assert given.interval <= timeout / 3


def test_redis_neither_evicts_nor_forgets() -> None:
    assert "--appendonly yes" in COMPOSE
    assert "--maxmemory-policy noeviction" in COMPOSE


def test_the_image_is_built_from_files_that_are_sent_to_docker() -> None:
    copied = [
        source.removeprefix("./").rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "redis_registry" in copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!").split("/")[0] for line in ignored if line[:1] == "!"}
    for source in copied:
        assert (ROOT / source).exists()
        assert source.split("/")[0] in sent
    assert f"EXPOSE {port()}" in DOCKERFILE
    assert "USER registry" in DOCKERFILE


def port() -> str:
    found = re.search(r"REDIS_REGISTRY_PORT=(\d+)", DOCKERFILE)
    assert found is not None
    return found.group(1)


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"^ +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    python, *rest = json.loads(found.group(1))
    assert python == "python"
    monkeypatch.setattr(Health, "status", status)
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("REDIS_REGISTRY_PORT", str(server.server_port))
        done = subprocess.run([sys.executable, *rest], check=False, timeout=10)
        server.shutdown()
        thread.join()
    assert done.returncode == code
