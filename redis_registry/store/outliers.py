"""What callers learn of instances: which calls failed, who may probe, and whom to choose."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from redis_registry.model import ModelInstance
from redis_registry.selection import draw_probe, pick
from redis_registry.store.calls import Call, Operation, ask, chunks, micros
from redis_registry.store.readers import Readers
from redis_registry.store.replies import Outcome, read_outcomes
from redis_registry.wire.keys import identity_text, partition_of

__all__ = ["Outliers", "Tally"]

REPORT_CHUNK = 200
"""Instances per report: about 1 ms of Redis's time."""

REMEMBERED_SECS = 30.0
"""How long a report that was counted is known by its name, at least; a repeated one comes sooner."""


MOST_REASON = 100
"""Characters of a reason that an event keeps."""


@dataclass(slots=True)
class Tally:
    """How calls to one life of an instance ended, since the last report.

    Attributes:
        instance: Which one.
        failures: How many failed.
        successes: How many did not.
        trailing: How many have failed since the last that did not.
        reason: Of the last failure, in plain words.
    """

    instance: ModelInstance
    failures: int = 0
    successes: int = 0
    trailing: int = 0
    reason: str = ""

    def fail(self, reason: str) -> None:
        """Count a failure."""
        self.failures += 1
        self.trailing += 1
        self.give(reason)

    def give(self, reason: str) -> None:
        """Set the reason, of which one plain line is kept."""
        text = " ".join(reason.split()).replace("|", "/")[:MOST_REASON]
        self.reason = text.encode(errors="replace").decode()


def _named(tally: Tally) -> tuple[str, str, str, str, str, str]:
    return (
        identity_text(tally.instance.identity),
        tally.instance.incarnation or "",
        str(tally.failures),
        str(tally.successes),
        str(tally.trailing),
        tally.reason,
    )


class Outliers(Readers):
    """Operations of those who call the instances."""

    def report(
        self, tallies: Sequence[Tally], operation: str | None = None
    ) -> Operation[list[Outcome]]:
        """Tell how calls ended; for each what it has led to. Repeated calls count once.

        So do the calls of another operation of the same name and tallies, within 30 s.
        """
        name = operation or secrets.token_hex(8)
        partitions = yield from self._join()
        homes: dict[int, list[int]] = defaultdict(list)
        for place, tally in enumerate(tallies):
            homes[partition_of(tally.instance.model_name, partitions)].append(place)
        pieces = [
            (home, chunk)
            for home, places in homes.items()
            for chunk in chunks(places, REPORT_CHUNK)
        ]
        replies = yield [
            self._report(home, [tallies[i] for i in chunk], f"{name}.{number}")
            for number, (home, chunk) in enumerate(pieces)
        ]
        found: dict[int, Outcome] = {}
        for (_, chunk), outcomes in zip(pieces, replies, strict=True):
            found.update(zip(chunk, outcomes, strict=True))
        return [found[i] for i in range(len(tallies))]

    def _report(
        self, partition: int, tallies: Sequence[Tally], operation: str
    ) -> Call[list[Outcome]]:
        keys, rules = self.keys(partition), self.settings.outliers
        named = [_named(tally) for tally in tallies]
        remembered = max(REMEMBERED_SECS, 2 * self.settings.operation_timeout)
        return self._call(
            "outcome",
            partition,
            [
                keys.base,
                operation,
                micros(remembered),
                "|".join(
                    (
                        str(rules.consecutive_failures),
                        str(rules.failure_share),
                        str(rules.min_calls),
                        micros(rules.window_secs),
                        str(rules.max_ejected_share),
                        micros(rules.base_ejection_secs),
                        micros(rules.max_ejection_secs),
                    )
                ),
                *(part for parts in named for part in parts),
            ],
            read_outcomes,
            more=[keys.instance(parts[0]) for parts in named],
        )

    def claim_probe(self, instance: ModelInstance) -> Operation[bool]:
        """Ask for the one probe of an instance that is kept out; whether it was granted."""
        partition = yield from self._home(instance)
        identity = identity_text(instance.identity)
        return (
            yield from ask(
                self._call(
                    "claim_probe",
                    partition,
                    [
                        identity,
                        instance.incarnation or "",
                        secrets.token_hex(3),
                        micros(self.settings.outliers.probe_secs),
                    ],
                    bool,
                    instance=self.keys(partition).instance(identity),
                )
            )
        )

    def select(self, model_name: str) -> Operation[ModelInstance | None]:
        """One that may take work, at random; ``None`` if there is none.

        One that awaits its probe is chosen as any other, if the probe is granted. When all that
        could work are held out, one of them: better than nobody.
        """
        sampled = yield from self.sample(model_name)
        chosen = (yield from self.probe(sampled)) or pick(sampled, sample=True)
        if chosen is None:
            found = yield from self.read(model_name, healthy_only=True)
            chosen = (yield from self.probe(found)) or pick(found)
        return chosen

    def probe(
        self, instances: Sequence[ModelInstance]
    ) -> Operation[ModelInstance | None]:
        """One that awaits its probe, as often as others are chosen, if the probe is granted."""
        due = draw_probe(instances)
        if due is not None and (yield from self.claim_probe(due)):
            return due
        return None
