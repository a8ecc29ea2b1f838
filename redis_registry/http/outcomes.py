"""Failing calls, by HTTP: for routers that don't speak Python, or don't reach Redis."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from redis_registry.http.app import SCHEMA_REF, Reply, Request, Route
from redis_registry.http.workers import body_of, reply_of
from redis_registry.registry import RedisModelRegistry
from redis_registry.registry.outcomes import Tally
from redis_registry.wire.outcomes import (
    OUTCOMES,
    PROBES,
    Claim,
    Granted,
    Judged,
    Judgements,
    Report,
    Reports,
)

__all__ = ["outcome_routes"]


def _tally(report: Report) -> Tally:
    trailing = report.failures if report.trailing is None else report.trailing
    tally = Tally(report.instance, report.failures, report.successes)
    tally.trailing = min(trailing, report.failures)
    tally.give(report.reason)
    return tally


def outcome_routes(registry: RedisModelRegistry) -> list[Route]:
    """``POST /v1/outcomes`` and ``POST /v1/probes``."""

    async def outcomes(request: Request) -> Reply:
        told = await body_of(request, Reports)
        found = await registry.report_outcomes(
            [_tally(report) for report in told.outcomes], operation=told.operation
        )
        answers = [Judged(verdict=o.verdict.value, until=o.until) for o in found]
        return reply_of(Judgements(outcomes=answers))

    async def probe(request: Request) -> Reply:
        asked = await body_of(request, Claim)
        return reply_of(Granted(granted=await registry.claim_probe(asked.instance)))

    def post(
        path: str, handler: Any, summary: str, body: type[BaseModel], reply: Any
    ) -> Route:
        return Route(
            "POST",
            path,
            handler,
            summary,
            body.model_json_schema(ref_template=SCHEMA_REF),
            reply=reply.model_json_schema(ref_template=SCHEMA_REF),
        )

    return [
        post(
            OUTCOMES,
            outcomes,
            "Tell how calls to instances ended; enough failures keep one out",
            Reports,
            Judgements,
        ),
        post(
            PROBES,
            probe,
            "Ask for the one probe of an instance that was ejected",
            Claim,
            Granted,
        ),
    ]
