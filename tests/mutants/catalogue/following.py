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
        "following/test_kept.py::test_a_flushed_redis_does_not_empty_it",
        (
            "redis_registry/roles/following/follower.py",
            "age_secs=time.monotonic() - since",
            "age_secs=math.inf",
        ),
    ),
    mutant(
        "R4",
        "who beat at the former master until now is missed at the new one",
        "following/test_kept.py::test_who_beat_at_the_former_master_until_now_is_not_missed_at_the_new_one",
        (
            "redis_registry/roles/following/follower.py",
            "max(age_secs, 0.0), reading.heard)",
            "max(age_secs, 0.0))",
        ),
    ),
    mutant(
        "R4",
        "a readiness that a crash lost is not believed any more",
        "following/test_kept.py::test_a_readiness_that_redis_lost_is_believed_for_a_timeout",
        (
            "redis_registry/core/rows.py",
            "return None if remembering is found else remembering",
            "return None",
        ),
    ),
    mutant(
        "R4",
        "a readiness that a crash lost is believed for good",
        "following/test_kept.py::test_a_readiness_that_redis_lost_is_believed_for_a_timeout",
        (
            "redis_registry/core/mirror.py",
            "if row.kept or row.heard",
            "if row.kept",
        ),
    ),
    mutant(
        "R4",
        "any event takes a word away that Redis lost",
        "following/test_kept.py::test_what_is_told_of_something_else_does_not_take_a_word_away",
        (
            "redis_registry/core/rows.py",
            "return row.remembering(self) if remembers else row",
            "return row",
        ),
    ),
    mutant(
        "R4",
        "what was heard before a loss outlives a newer word",
        "following/test_kept.py::test_a_newer_word_ends_it",
        (
            "redis_registry/core/rows.py",
            " and kind not in _WORDS\n",
            "\n",
        ),
    ),
    mutant(
        "R4",
        "a lost goodbye brings the dead back",
        "following/test_kept.py::test_a_goodbye_that_redis_lost_is_believed",
        (
            "redis_registry/wire/raw_rows.py",
            "        parts[STATE] = parts[HEALTH] = GOODBYE\n",
            "        pass\n",
        ),
    ),
    mutant(
        "R4",
        "a lost word of a newer life is not noticed",
        "following/test_kept.py::test_the_later_word",
        (
            "redis_registry/wire/raw_rows.py",
            'return word["life"], word',
            'return b"", word',
        ),
    ),
    mutant(
        "R4",
        "all are kept for the reader's timeout",
        "following/test_kept.py::test_it_is_kept_for_its_own_timeout",
        (
            "redis_registry/core/mirror.py",
            "if row.timeout_secs > age_secs:",
            "if age_secs < 1.0:",
        ),
    ),
    mutant(
        "R4",
        "a clock put back keeps the lost for as long",
        "following/test_kept.py::test_an_epoch_that_begins_in_the_future_keeps_nobody_for_longer",
        (
            "redis_registry/roles/following/follower.py",
            "now - max(age_secs, 0.0)",
            "now - age_secs",
        ),
    ),
    mutant(
        "R4",
        "a gap soon after a restart ends what was kept",
        "following/test_kept.py::test_a_gap_soon_after_a_flush_does_not_empty_it",
        (
            "redis_registry/roles/following/follower.py",
            "since = self._keeping.since(partition)",
            "since = -math.inf",
        ),
    ),
    mutant(
        "R4",
        "who is removed in a gap soon after a restart is kept",
        "following/test_kept.py::test_who_is_removed_in_a_gap_soon_after_a_flush_is_gone",
        (
            "redis_registry/roles/following/reading.py",
            "if whole and self._removals:",
            "if whole and self.cause == Lost.EPOCH:",
        ),
    ),
    mutant(
        "R4",
        "a record that can't be read is in the way of the others",
        "following/test_kept.py::test_a_record_that_cannot_be_read_is_left_out_and_in_nobodys_way",
        (
            "redis_registry/core/mirror.py",
            "if not is_row(raw):",
            "if False:",
        ),
    ),
    mutant(
        "R4",
        "removed before a restart, kept after it",
        "following/test_kept.py::test_what_was_removed_while_nobody_listened_is_not_kept_after_a_restart",
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
