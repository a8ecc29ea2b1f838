"""What a health check is told of a checker of several partitions."""

from __future__ import annotations

from redis_registry import CheckerStatus


def test_the_worst_partition_counts_whatever_the_others_do() -> None:
    status = CheckerStatus()
    status.succeeded(0)
    status.succeeded(1)
    since = status.last_success
    for attempt in (1, 2, 3):
        status.failed(1, attempt, OSError("away"))
        status.succeeded(0)

    assert status.failures == 3
    assert status.last_success is not None
    assert since is not None
    assert status.last_success > since, "partition 1 has succeeded after partition 0"
    waits = status.last_success
    status.succeeded(0)
    assert status.last_success == waits
    status.succeeded(1)
    assert status.failures == 0
    assert status.last_success > waits
