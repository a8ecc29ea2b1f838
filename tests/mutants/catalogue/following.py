"""R1 to R4: events, watches and views."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, TAIL, mutant

MUTANTS = [
    mutant(
        "R1",
        "a flip writes no event",
        "promises/test_liveness.py::test_a_sweep_flips_exactly_the_overdue",
        (
            LUA + "flip.lua",
            "rev = rev + 1\n      local id = format('%d', rev)",
            "local id = format('%d', rev)",
        ),
    ),
    mutant(
        "R1",
        "what is said again changes since when it is so, and no event tells",
        "promises/test_incarnations.py::test_what_is_said_again_changes_nothing_that_readers_see",
        (LUA + "register.lua", "record.why = said_at(old)", "record.why = now_text"),
    ),
    mutant(
        "R1",
        "registering again is an event though nothing changed",
        "registry/test_events.py::test_the_life_of_an_instance_is_told_change_by_change",
        (
            LUA + "register.lua",
            "elseif record.spec ~= old.spec or record.timeout ~= old.timeout",
            "elseif true or record.spec ~= old.spec",
        ),
    ),
    mutant(
        "R2",
        "a snapshot calls dead whom no event has called dead",
        "following/test_watch.py::test_a_snapshot_is_what_the_events_before_it_make",
        (
            "redis_registry/core/mirror.py",
            "(instance := row.held) is not None",
            "(instance := row.instance) is not None",
        ),
    ),
    mutant(
        "R2",
        "a gap in the revisions is passed over",
        "following/test_chaos.py::test_view_and_watch_are_true_after_cuts_restart_failover_and_trim",
        (TAIL, "elif place.revision != here.revision + 1:", "elif not place.epoch:"),
    ),
    mutant(
        "R2",
        "what a tail learns while it ends is taken for the next beginning",
        "following/test_tail.py::test_an_answer_that_comes_with_the_end_is_none_for_the_next_beginning",
        (TAIL, "for one in (task, *self._following):", "for one in (task,):"),
    ),
    mutant(
        "R2",
        "a change that one follower can't take in is kept from the others",
        "following/test_tail.py::test_a_change_that_one_follower_cannot_take_in_reaches_the_others",
        (TAIL, "self._tell(follower, entry, place)", "follower.take(entry)"),
    ),
    mutant(
        "R2",
        "changes that can't be read any more are waited for",
        "following/test_watch.py::test_events_that_are_trimmed_before_they_were_read_are_a_resync",
        (TAIL, "if here.revision < revision:", "if here.revision < 0:"),
    ),
    mutant(
        "R2",
        "a flushed Redis is taken for the one before",
        "following/test_watch.py::test_a_flush_under_a_running_watch_is_a_resync",
        (
            TAIL,
            "elif here.epoch != found.epoch or here.revision > found.revision:",
            "elif not found.epoch:",
        ),
    ),
    mutant(
        "R2",
        "a slow consumer gets an ever longer queue",
        "following/test_watch.py::test_a_slow_consumer_is_told_and_gets_a_snapshot",
        (
            "redis_registry/roles/following/watch.py",
            "if len(self._queue) >= self._buffer:",
            "if not self._begun:",
        ),
    ),
    mutant(
        "R2",
        "a watch resumes where events are gone",
        "following/test_watch.py::test_a_position_that_was_trimmed_gets_a_named_resync",
        (
            "redis_registry/roles/following/watch.py",
            "if not same or entry.revision != here.revision + 1:",
            "if not same:",
        ),
    ),
    mutant(
        "R3",
        "an old page overwrites a newer change",
        "following/test_mirror.py::test_a_mirror_read_while_everything_changes_is_true_in_the_end",
        (
            "redis_registry/core/mirror.py",
            "if touched <= page.revision:",
            "if page.rows:",
        ),
    ),
    mutant(
        "R3",
        "a view does not see deadlines pass",
        "following/test_view.py::test_one_that_falls_silent_leaves_at_its_timeout_without_any_checker",
        (
            "redis_registry/roles/following/follower.py",
            "if partition in self._homes and (before or overdue.members):",
            "if before and not overdue.members:",
        ),
    ),
    mutant(
        "R4",
        "an emptied Redis empties the views",
        "following/test_view.py::test_a_flushed_redis_does_not_empty_it",
        (
            "redis_registry/roles/following/follower.py",
            "keep=keep_secs > 0",
            "keep=False",
        ),
    ),
    mutant(
        "R4",
        "who beat at the former master until now is missed at the new one",
        "following/test_view.py::test_who_beat_at_the_former_master_until_now_is_not_missed_at_the_new_one",
        (
            "redis_registry/roles/following/follower.py",
            "min(age_secs, time.monotonic() - reading.heard)",
            "age_secs",
        ),
    ),
    mutant(
        "R4",
        "a readiness that a crash lost is not believed any more",
        "following/test_view.py::test_a_readiness_that_redis_lost_is_believed_for_a_timeout",
        (
            "redis_registry/core/mirror.py",
            "found.remembering(row)",
            "found",
        ),
    ),
    mutant(
        "R4",
        "a readiness that a crash lost is believed for good",
        "following/test_view.py::test_a_readiness_that_redis_lost_is_believed_for_a_timeout",
        (
            "redis_registry/core/mirror.py",
            "not (row.kept or row.heard)",
            "not row.kept",
        ),
    ),
    mutant(
        "R4",
        "a gap soon after a restart ends what was kept",
        "following/test_view.py::test_a_gap_soon_after_a_flush_does_not_empty_it",
        (
            "redis_registry/roles/following/follower.py",
            "elif kept is not None:",
            "elif False:",
        ),
    ),
    mutant(
        "R4",
        "a record that can't be read is in the way of the others",
        "following/test_view.py::test_a_record_that_cannot_be_read_is_left_out_and_in_nobodys_way",
        (
            "redis_registry/core/rows.py",
            "                self.readable = False",
            '                self.raw = b""',
        ),
    ),
    mutant(
        "R4",
        "removed before a restart, kept after it",
        "following/test_view.py::test_what_was_removed_while_nobody_listened_is_not_kept_after_a_restart",
        (
            "redis_registry/roles/following/reading.py",
            "gone.add(identity)",
            "gone.discard(identity)",
        ),
    ),
    mutant(
        "R2",
        "what was missed is taken from whatever epoch it is found in",
        "following/test_watch.py::test_what_was_missed_is_not_taken_from_another_epoch",
        (
            "redis_registry/roles/following/watch.py",
            "if not same or entry.revision != here.revision + 1:",
            "if entry.revision != here.revision + 1:",
        ),
    ),
]
