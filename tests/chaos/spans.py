"""Spans of time: from when to when somebody stood still, or nobody served."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Span", "common", "length_within", "merged"]

Span = tuple[float, float]


def merged(spans: Iterable[Span]) -> list[Span]:
    """Those that touch made one; in order."""
    found: list[Span] = []
    for begun, ended in sorted(spans):
        if found and begun <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ended))
        else:
            found.append((begun, ended))
    return found


def length_within(spans: Iterable[Span], begun: float, ended: float) -> float:
    """How much of the time between two moments they cover; the spans may not overlap."""
    return sum(max(0.0, min(e, ended) - max(b, begun)) for b, e in spans)


def common(first: list[Span], second: list[Span]) -> list[Span]:
    """When both are; each in order and without overlaps."""
    found: list[Span] = []
    left, right = 0, 0
    while left < len(first) and right < len(second):
        begun = max(first[left][0], second[right][0])
        ended = min(first[left][1], second[right][1])
        if begun < ended:
            found.append((begun, ended))
        if first[left][1] < second[right][1]:
            left += 1
        else:
            right += 1
    return found
