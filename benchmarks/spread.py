"""``python -m benchmarks.spread``: how evenly each policy loads a fleet, as a picture.

A simulation without a network or a clock: 50 equal instances, requests of very unequal length from
sessions of very unequal zeal, so many that 20 are in flight at each on average. One controller knows
all of them. The result is the same in every run. It writes ``docs/images/load-spread.svg`` and prints
the numbers; needs matplotlib, which is no dependency of the project: ``pip install matplotlib``.
"""

from __future__ import annotations

import math
import random
import sys
from heapq import heappop, heappush
from importlib import import_module
from itertools import accumulate, count
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.harness import Missing
from redis_registry import (
    Candidates,
    Chooser,
    ConsistentHash,
    Health,
    ModelInstance,
    Outstanding,
)

TARGET = Path(__file__).parent.parent / "docs" / "images" / "load-spread.svg"
INSTANCES, IN_FLIGHT, SESSIONS = 50, 20, 5000
REQUESTS, WARM_UP, EVERY = 60_000, 20_000, 100
POLICIES = (
    "random",
    "weighted",
    "round_robin",
    "power_of_two",
    "least_loaded",
    "consistent_hash",
    "consistent_hash, no bound",
    "rendezvous",
)


def chooser(policy: str) -> Chooser:
    """It, with all that is under way to look at."""
    outstanding = Outstanding()
    if policy.endswith("no bound"):
        unbounded = ConsistentHash(outstanding, spare=math.inf)
        return Chooser(unbounded, outstanding=outstanding)
    return Chooser(policy, outstanding=outstanding)


def simulated(policy: str) -> list[float]:
    """Samples of what an instance has in flight, by the mean."""
    random.seed(1)  # the policies'
    chance = random.Random(2)  # the requests', which are the same for each policy
    candidates = Candidates(
        ModelInstance(
            model_name="glm@llm",
            host=f"10.0.0.{number}",
            port=8000,
            healthy=True,
            state=Health.HEALTHY,
        )
        for number in range(INSTANCES)
    )
    how, samples = chooser(policy), list[float]()
    # The busiest session sends 1 request of 60, the median one 1 of 16,000.
    zeal = list(accumulate(1 / (rank + 10) for rank in range(SESSIONS)))
    ends: list[tuple[float, int, ModelInstance]] = []
    now, ticket = 0.0, count()
    for number in range(REQUESTS):
        now += chance.expovariate(INSTANCES * IN_FLIGHT)
        while ends and ends[0][0] <= now:
            how.outstanding.end(heappop(ends)[2])
        (session,) = chance.choices(range(SESSIONS), cum_weights=zeal)
        lasts = chance.lognormvariate(-0.5, 1)  # 1 on average; 1 of 100 lasts 6
        chosen = how.choose(candidates, f"session-{session}")
        if chosen is None:
            raise RuntimeError("nobody was chosen")
        how.outstanding.begin(chosen)
        heappush(ends, (now + lasts, next(ticket), chosen))
        if number >= WARM_UP and number % EVERY == 0:
            counts = how.outstanding.counts
            mean = sum(counts.values()) / INSTANCES
            samples += [
                counts.get(one.identity, 0) / mean for one in candidates.instances
            ]
    return samples


def draw(found: dict[str, list[float]]) -> None:
    """The picture: box from 1 of 4 to 3 of 4, whiskers from 1 of 100 to 99 of 100."""
    try:
        matplotlib: Any = import_module("matplotlib")
    except ImportError as error:
        raise Missing("matplotlib is not installed: pip install matplotlib") from error
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "spread", "svg.fonttype": "none"})
    plt: Any = import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    names = list(reversed(found))
    axes.boxplot(
        [found[name] for name in names],
        orientation="horizontal",
        whis=(1, 99),
        showfliers=False,
        tick_labels=names,
        medianprops={"color": "tab:red"},
    )
    axes.axvline(1, color="0.8", zorder=0)
    axes.set_xlabel("in flight at one instance / mean of all")
    axes.set_xlim(left=0)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, metadata={"Date": None, "Creator": None})


def main() -> int:
    """Simulate, print, draw."""
    found = {policy: simulated(policy) for policy in POLICIES}
    print(f"{'in flight / mean':28}{'1 %':>8}{'median':>8}{'99 %':>8}{'most':>8}")
    for policy, samples in found.items():
        cuts = quantiles(samples, n=100)
        row = (cuts[0], cuts[49], cuts[98], max(samples))
        print(f"{policy:28}" + "".join(f"{value:8.2f}" for value in row))
    try:
        draw(found)
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
