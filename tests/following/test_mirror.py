"""Pages of a snapshot and changes fit together, in whatever order they come (R3)."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from redis_registry.core.mirror import Mirror
from redis_registry.store.following import Entry, Page

IDENTITIES = [f"m{n % 2}:h:{n + 1}" for n in range(6)]


def row(identity: str, revision: int) -> bytes:
    return f"{identity}|11r|60000:|1|1|0|0|{revision}|||||".encode() + b"\x92\x01\x80"


def entry(identity: str, revision: int, *, removed: bool) -> Entry:
    kind = "removed" if removed else "registered"
    head = f"e|{kind}|test|test|0".encode()
    about = identity.encode() if removed else row(identity, revision)
    return Entry(0, revision, head, about)


@dataclass
class Story:
    """Changes, numbered from 1; pages, each read after so many of them; and the order in which
    pages and changes reach the mirror."""

    changes: list[tuple[int, bool]]
    cuts: list[int]
    read_at: list[int]
    order: list[bool]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    changes = draw(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=25))
    cuts = sorted(draw(st.sets(st.integers(1, 5), max_size=3)))
    moments = st.integers(0, len(changes))
    pages = len(cuts) + 1
    read_at = sorted(draw(st.lists(moments, min_size=pages, max_size=pages)))
    order = draw(st.permutations([True] * pages + [False] * len(changes)))
    return Story(changes, cuts, read_at, list(order))


def state_after(changes: list[tuple[int, bool]], count: int) -> dict[str, int]:
    state: dict[str, int] = {}
    for revision, (index, removed) in enumerate(changes[:count], 1):
        state.pop(IDENTITIES[index], None)
        if not removed:
            state[IDENTITIES[index]] = revision
    return state


@given(stories())
def test_a_mirror_read_while_everything_changes_is_true_in_the_end(
    story: Story,
) -> None:
    """The tail tells of all changes from the first page's moment on; pages come in between."""
    mirror = Mirror(touched={})
    begin = story.read_at[0]
    changes = [
        entry(IDENTITIES[index], revision, removed=removed)
        for revision, (index, removed) in enumerate(story.changes, 1)
        if revision > begin
    ]
    bounds = [0, *story.cuts, len(IDENTITIES)]
    pages: list[Page] = []
    for at, first, last in zip(story.read_at, bounds[:-1], bounds[1:], strict=True):
        held = state_after(story.changes, at)
        rows = [row(i, held[i]) for i in IDENTITIES[first:last] if i in held]
        pages.append(Page("e", at, rows, None))

    for is_page in story.order:
        if is_page:
            mirror.add(0, pages.pop(0))
        elif changes:
            mirror.apply(changes.pop(0))

    final = state_after(story.changes, len(story.changes))
    told = {
        identity: item.raw
        for model in mirror.models.values()
        for identity, item in model.rows.items()
    }
    assert told == {identity: row(identity, rev) for identity, rev in final.items()}
    assert all(model.rows for model in mirror.models.values())


def test_what_events_leave_out_stays_as_it_was_known() -> None:
    """A flip carries no reason and no load; another life has neither."""
    known = b"m:h:1|11n|60000:a|1|1|0|0|1||5:0:busy|{}|e:9|\x92\x01\x80"
    mirror = Mirror()
    mirror.add(0, Page("e", 1, [known], None))
    flip = b"m:h:1|11n|60000:a|x|x|7|0|2|||||\x92\x01\x80"
    mirror.apply(Entry(0, 2, b"e|unhealthy|expired|t|7", flip))
    assert mirror.rows()[0] == [
        b"m:h:1|11n|60000:a|x|x|7|0|2||5:0:busy|{}|e:9|\x92\x01\x80"
    ]
    new = b"m:h:1|11r|60000:b|1|1|8|0|3|||||\x92\x01\x80"
    mirror.apply(Entry(0, 3, b"e|registered|new incarnation|t|8", new))
    assert mirror.rows()[0] == [new]
