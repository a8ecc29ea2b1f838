"""Fixtures of the promises."""

from __future__ import annotations

from typing import Any

import pytest

from redis_registry import (
    OutlierSettings,
    RedisModelRegistry,
)
from tests.conftest import Bench, MakeBench
from tests.promises.ejecting import Pair


@pytest.fixture
async def pair(make_bench: MakeBench) -> Pair:
    """Two registry objects on one server: a bench and another replica."""

    async def build(**rules: Any) -> tuple[Bench, RedisModelRegistry]:
        outliers = OutlierSettings(**rules)
        bench = await make_bench(outliers=outliers)
        return bench, (await make_bench(outliers=outliers)).registry

    return build
