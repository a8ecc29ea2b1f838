"""What tests of single faults share."""

from __future__ import annotations

import pytest

from redis_registry.testing import Standalone
from tests.places import Place


@pytest.fixture
def own_server(own_server: Place) -> Standalone:
    """The one server of a test that breaks it."""
    (server,) = own_server.servers
    return server
