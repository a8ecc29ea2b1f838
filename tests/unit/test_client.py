"""What each failure of the driver means, and what becomes of it."""

from __future__ import annotations

import pytest
from redis import exceptions as driver

from redis_registry import errors
from redis_registry.store.driver.sentinels import NoMaster, SentinelsRefuse
from redis_registry.store.faults import Fault, classify, translate
from redis_registry.store.retrying import BACKOFF_MOST_SECS, backoff

CASES: list[tuple[Exception, Fault, type[errors.RegistryError]]] = [
    (driver.ConnectionError("reset"), Fault.UNKNOWN, errors.RegistryUnavailable),
    (driver.TimeoutError("late"), Fault.UNKNOWN, errors.RegistryUnavailable),
    (ConnectionResetError(), Fault.UNKNOWN, errors.RegistryUnavailable),
    (driver.BusyLoadingError("LOADING"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (
        driver.ReadOnlyError("You can't write against a read only replica."),
        Fault.NOT_APPLIED,
        errors.RegistryUnavailable,
    ),
    (driver.ReadOnlyError("READONLY"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.ResponseError("TRYAGAIN x"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.TryAgainError("Multiple"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.ClusterDownError("down"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.MovedError("7 h:1"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.ResponseError("MISCONF x"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.ResponseError("BUSY x"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (
        driver.ResponseError("Error running script … -READONLY You can't"),
        Fault.NOT_APPLIED,
        errors.RegistryUnavailable,
    ),
    (driver.AuthenticationError("WRONGPASS"), Fault.PERMANENT, errors.AccessDenied),
    (driver.NoPermissionError("no"), Fault.PERMANENT, errors.AccessDenied),
    (SentinelsRefuse("WRONGPASS"), Fault.PERMANENT, errors.AccessDenied),
    (NoMaster("they call it down"), Fault.NOT_APPLIED, errors.RegistryUnavailable),
    (driver.MaxConnectionsError("busy"), Fault.PERMANENT, errors.PoolExhausted),
    (driver.OutOfMemoryError("OOM"), Fault.PERMANENT, errors.OutOfMemory),
    (driver.ResponseError("WRONGTYPE Operation"), Fault.PERMANENT, errors.KeyConflict),
    (driver.ResponseError("RRFENCED a 3"), Fault.PERMANENT, errors.LeaseLost),
    (
        driver.ResponseError("RRTOOLARGE metadata 70000 65536"),
        Fault.PERMANENT,
        errors.InvalidInstance,
    ),
    (driver.ResponseError("RRFORMAT 9"), Fault.PERMANENT, errors.FormatMismatch),
    (driver.ResponseError("RRPARTITIONS 4"), Fault.PERMANENT, errors.PartitionMismatch),
    (driver.ResponseError("anything else"), Fault.PERMANENT, errors.RegistryRefused),
]


@pytest.mark.parametrize(("raised", "fault", "ours"), CASES, ids=range(len(CASES)))
def test_failures_are_sorted_and_translated(
    raised: Exception, fault: Fault, ours: type[errors.RegistryError]
) -> None:
    assert classify(raised) is fault
    translated = translate(raised, "register", "host:1")
    assert type(translated) is ours
    assert "register" in str(translated)


def test_a_missing_script_is_no_failure() -> None:
    assert classify(driver.NoScriptError("NOSCRIPT")) is Fault.NO_SCRIPT


def test_a_bug_is_not_taken_for_an_outage() -> None:
    def buggy() -> None:
        raise TypeError("ours")

    with pytest.raises(TypeError) as caught:
        buggy()
    assert classify(caught.value) is Fault.FOREIGN


def test_backoff_has_full_jitter_and_a_bound() -> None:
    drawn = [backoff(attempt) for attempt in range(50) for _ in range(20)]
    assert 0 <= min(drawn) < 0.02
    assert 0.3 < max(drawn) <= BACKOFF_MOST_SECS
