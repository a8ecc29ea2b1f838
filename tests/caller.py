"""A process that calls instances, as far as the registry sees it: one command a line, one answer.

``python -m tests.caller URL [--outliers JSON]``, then lines of ``fail PORT``, ``claim PORT``,
``succeed PORT`` and ``select``, all of the tests' usual model.
"""

from __future__ import annotations

import json
import sys

from redis_registry import ModelInstance, OutlierSettings, SyncModelRegistry


def find(registry: SyncModelRegistry, port: int) -> ModelInstance:
    found = registry.get_all_instances("glm@llm")
    return next(item for item in found if item.port == port)


def answer(registry: SyncModelRegistry, command: str, port: int) -> object:
    match command:
        case "fail":
            outcome = registry.report_failure(find(registry, port), "refused")
            return outcome.verdict.value
        case "claim":
            return registry.claim_probe(find(registry, port))
        case "succeed":
            return registry.report_success(find(registry, port))
        case _:
            chosen = registry.select_one_health_instance("glm@llm")
            return chosen and chosen.port


def main(url: str, outliers: str) -> None:
    settings = OutlierSettings.model_validate_json(outliers)
    with SyncModelRegistry.from_url(url, outliers=settings) as registry:
        for line in sys.stdin:
            command, _, port = line.strip().partition(" ")
            print(json.dumps(answer(registry, command, int(port or 0))), flush=True)  # noqa: T201  for the parent


if __name__ == "__main__":
    main(*sys.argv[1:])
