"""R5: every reason has its golden text: why it may not receive work, and what would change it."""

from __future__ import annotations

import pytest

from redis_registry import (
    GuardSettings,
    OutlierSettings,
    Readiness,
    Reason,
)
from tests.conftest import MakeBench
from tests.helpers import instances
from tests.registry.explaining import (
    IT,
    Act,
    decide,
    expire,
    fail,
    flap,
    forget,
    goodbye,
    probe,
    register,
    remove,
    say,
    serve_time,
    shadow,
    silence,
    without_figures,
)

# Durations are written "#". Of each reason all the kinds that differ in their words.
GOLDEN: list[tuple[str, Reason, Act, str, str]] = [
    (
        "forced",
        Reason.FORCED,
        decide(healthy=False),
        "ann forced it unhealthy # ago: power work (override o-1)",
        "clear_override('o-1')",
    ),
    (
        "expired",
        Reason.UNHEALTHY,
        expire,
        "its last heartbeat was # ago, its timeout is #, and a sweep flipped it # ago",
        "its next heartbeat",
    ),
    (
        "deregistered",
        Reason.UNHEALTHY,
        lambda bench: bench.registry.deregister_instance(IT),
        "it was deregistered # ago",
        "its next heartbeat, or registering it again",
    ),
    (
        "goodbye",
        Reason.UNHEALTHY,
        goodbye,
        "its worker said goodbye # ago",
        "a new life of its worker at this address; this one is over",
    ),
    (
        "overdue",
        Reason.OVERDUE,
        silence,
        "its deadline passed # ago (no heartbeat within its timeout of #), and no sweep has flipped it yet",
        "its next heartbeat",
    ),
    (
        "disabled by an operator",
        Reason.DISABLED,
        decide(enabled=False, expires_secs=3000),
        "ann disabled it # ago: power work (override o-1)",
        "clear_override('o-1'), or its end in #",
    ),
    (
        "disabled by itself",
        Reason.DISABLED,
        lambda bench: register(bench, enabled=False),
        "it registered as disabled",
        "a new incarnation that registers as enabled, or override(enabled=True)",
    ),
    (
        "drained by an operator",
        Reason.DRAINING,
        decide(draining=True),
        "ann set it draining # ago: power work (override o-1)",
        "clear_override('o-1')",
    ),
    (
        "draining",
        Reason.DRAINING,
        say(Readiness.DRAINING, "restart"),
        "it has been draining for #: restart",
        "ready() of its worker",
    ),
    (
        "failed",
        Reason.FAILED,
        say(Readiness.FAILED, "no answer"),
        "it was not ready within its startup budget, and has failed for #: no answer",
        "a new life of its worker, or its ready()",
    ),
    (
        "starting",
        Reason.STARTING,
        say(Readiness.STARTING),
        "it has been starting for #",
        "ready() of its worker",
    ),
    (
        "wedged",
        Reason.WEDGED,
        say(Readiness.WEDGED, "no progress"),
        "its heartbeats go on, but its work has been stuck for #: no progress",
        "progress of its work, and ready() of its worker",
    ),
    (
        "not ready",
        Reason.NOT_READY,
        say(Readiness.NOT_READY, "no disk"),
        "it has said not to be ready for #: no disk",
        "ready() of its worker",
    ),
    (
        "no weight by an operator",
        Reason.NO_WEIGHT,
        decide(weight=0),
        "ann set its weight to 0 # ago: power work (override o-1)",
        "clear_override('o-1')",
    ),
    (
        "no weight",
        Reason.NO_WEIGHT,
        lambda bench: register(bench, weight=0),
        "it registered with weight 0",
        "registering again with a weight above 0, or override(weight=1)",
    ),
    (
        "ejected",
        Reason.FAILURES,
        fail,
        "calls to it failed (5 failures in a row: refused): it is held out, for # more",
        "one call to it that succeeds, as a probe in # at the earliest",
    ),
    (
        "half open",
        Reason.FAILURES,
        serve_time,
        "calls to it failed (5 failures in a row: refused); its time out is over, and no probe has succeeded since",
        "one call to it that succeeds: the next select may send it as a probe",
    ),
    (
        "probed",
        Reason.FAILURES,
        probe,
        "calls to it failed (5 failures in a row: refused); its one probe is under way",
        "the success of that probe; another may be claimed in #",
    ),
    (
        "flapping",
        Reason.FLAPPING,
        flap,
        "it came back from the dead too often (penalty 3.0): it is held out for # more",
        "staying alive: it comes back by itself in #",
    ),
    (
        "shadowed",
        Reason.SHADOWED,
        shadow,
        "bob has made its model's name an alias of 'other@llm' # ago, and reads of it are answered with that model",
        "remove_alias('glm@llm')",
    ),
    (
        "removed",
        Reason.UNKNOWN,
        remove,
        "it is not registered any more; 10.0.0.1:1 was removed # ago",
        "registering it",
    ),
    (
        "forgotten",
        Reason.UNKNOWN,
        forget,
        "it is not registered any more; 10.0.0.1:1 was forgotten # ago",
        "registering it",
    ),
]


@pytest.mark.parametrize(
    ("reason", "act", "because", "remedy"),
    [row[1:] for row in GOLDEN],
    ids=[row[0] for row in GOLDEN],
)
async def test_every_state_has_one_reason_and_a_way_out(
    make_bench: MakeBench, reason: Reason, act: Act, because: str, remedy: str
) -> None:
    short = act in (serve_time, probe)
    rules = OutlierSettings(base_ejection_secs=0.05) if short else OutlierSettings()
    bench = await make_bench(guard=GuardSettings(enabled=False), outliers=rules)
    await bench.registry.send_heartbeats(instances(4))
    before = await bench.registry.explain(IT)
    assert (before.selectable, before.reason, before.remedy) == (True, None, "")

    await act(bench)

    found = await bench.registry.explain(IT)
    assert (found.selectable, found.reason) == (False, reason)
    assert without_figures(found.because) == because
    assert without_figures(found.remedy) == remedy
    assert not found.last_resort
    everybody = await bench.registry.explain("glm@llm")
    if reason not in (Reason.UNKNOWN, Reason.SHADOWED):
        assert everybody.reasons == {reason: 1}
        assert everybody.instances[0].reason is reason


def test_every_reason_is_in_the_golden_table() -> None:
    assert list(dict.fromkeys(row[1] for row in GOLDEN)) == list(Reason)
