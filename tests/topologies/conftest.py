"""What tests of topologies share."""

from __future__ import annotations

import pytest

from tests.conftest import _binary


@pytest.fixture(params=["valkey", "redis7"])
def binary(request: pytest.FixtureRequest) -> str:
    """Each server binary."""
    return _binary(request.param)
