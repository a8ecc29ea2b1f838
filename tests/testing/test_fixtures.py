"""The fixtures work in a project of somebody else, as the page about them says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/how-to/test.md"

EVERY = """
import pytest
from redis_registry.testing import Cluster, Network, Proxy
pytest_plugins = ["redis_registry.testing.fixtures"]

@pytest.fixture(scope="session")
def registry_binary():
    return BINARY

def test_cluster(registry_cluster: Cluster):
    assert len(registry_cluster.primaries()) == 3

def test_network(registry_network: Network):
    assert len(registry_network.hosts) == 3

def test_proxy(registry_server, registry_proxy: Proxy):
    assert registry_proxy.target == registry_server.port
    assert "redis_version" in registry_server.info("server")
    assert registry_server.info("server").get("server_name", "redis") == "redis"

@pytest.mark.asyncio
async def test_async(registry):
    assert (await registry.status())[0].living == 0
"""


def _passes(directory: Path, code: str) -> str:
    (directory / "test_it.py").write_text(code)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--tb=short", "-rs"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```python\n(# test_routing.py.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert "3 passed" in _passes(tmp_path, example)


def test_every_fixture_gives_what_it_says_with_the_binary_that_was_chosen(
    tmp_path: Path,
) -> None:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server (Debian's 7.0) is not installed: apt-get install it")
    said = _passes(tmp_path, EVERY.replace("BINARY", repr(binary)))
    assert "4 passed" in said or "a network of hosts needs" in said


def test_the_servers_need_no_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import redis_registry.testing as testing\n"
        "with testing.Standalone() as server: assert server.call('PING') == 'PONG'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_names_everything_that_there_is() -> None:
    from redis_registry import testing
    from redis_registry.testing import fixtures

    page = PAGE.read_text()
    for name in testing.__all__:
        if name not in ("Node", "Host", "Sentinel"):  # parts of what is named
            assert f"`{name}" in page
    for name in re.findall(r"^``(\w+)``", fixtures.__doc__ or "", re.MULTILINE):
        assert name in page
        assert hasattr(fixtures, name)
