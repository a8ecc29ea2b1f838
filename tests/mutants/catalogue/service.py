"""S1 to S4: errors, loops and releases."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import CHECKER, EXECUTOR, LUA, REPLIES, mutant

MUTANTS = [
    mutant(
        "S3",
        "a cancellation that the driver has swallowed is not heeded",
        "unit/test_executor.py::test_a_cancellation_that_the_driver_has_swallowed_is_heeded",
        (EXECUTOR, "if task and task.cancelling() > cancelled:", "if False:"),
    ),
    mutant(
        "S1",
        "a driver that loses a cancellation goes on without end",
        "unit/test_executor.py::test_a_deadline_holds_though_the_driver_loses_its_cancellation",
        (
            "redis_registry/store/driver/bound.py",
            "self._next = self._loop.call_later(AGAIN_SECS, self._fire)",
            "pass",
        ),
    ),
    mutant(
        "S1",
        "history is asked for behind the wait for news",
        "unit/test_deadlines.py::test_history_is_read_beside_the_wait_for_news",
        (
            EXECUTOR,
            'self._lane("wait" if command.wait_secs else command.lane)',
            'self._lane("wait")',
        ),
    ),
    mutant(
        "S1",
        "each step of a thread's call has all of its time",
        "unit/test_deadlines.py::test_threads_keep_to_the_deadline_beside_a_server_that_stands_still",
        (
            "redis_registry/store/driver/patience.py",
            "if _call.until is None:",
            "if True:",
        ),
    ),
    mutant(
        "S1",
        "a thread gives each partition the whole deadline",
        "unit/test_deadlines.py::test_threads_have_one_deadline_for_all_partitions",
        (
            "redis_registry/store/sync_executor.py",
            "replies = [self.call(call, until, lane) for call in calls]",
            "replies = [\n                        self.call(call, time.monotonic() + secs, lane) for call in calls\n                    ]",
        ),
    ),
    mutant(
        "S3",
        "a heartbeat under way ends as if its caller had cancelled it",
        "unit/test_deadlines.py::test_a_heartbeat_under_way_is_told_that_the_registry_was_closed",
        (
            "redis_registry/core/coalescer.py",
            "        future.set_exception(error)",
            "        future.cancel()",
        ),
    ),
    mutant(
        "S3",
        "watches on other loops are forgotten when the registry is closed",
        "unit/test_deadlines.py::test_a_watch_on_another_loop_ends_with_the_registry",
        (
            "redis_registry/registry/base.py",
            "_elsewhere(loop, self._leave(self._hubs.pop(loop, None)))",
            "pass",
        ),
    ),
    mutant(
        "S3",
        "the end waits for each partition in turn",
        "unit/test_deadlines.py::test_all_reservations_are_given_up_in_the_time_of_one",
        (
            "redis_registry/roles/holder.py",
            "deadline_secs=max(until - time.monotonic(), LAST_SECS)",
            "deadline_secs=CLOSE_SECS",
        ),
    ),
    mutant(
        "S2",
        "of many servers the one that does not answer is not named",
        "topologies/test_messages.py::test_a_node_that_announces_what_nobody_reaches_is_named",
        (
            "redis_registry/store/retrying.py",
            'return f"{self.where} (this call: {server})" if server else self.where',
            "return self.where",
        ),
    ),
    mutant(
        "S1",
        "the checker dies of what it doesn't know",
        "promises/test_lease.py::test_a_checker_survives_every_error_and_says_so",
        (
            CHECKER,
            """except Exception as error:  # noqa: BLE001  promise S1
                self._terms.pop(partition, None)""",
            """except RegistryError as error:
                self._terms.pop(partition, None)""",
        ),
    ),
    mutant(
        "S2",
        "the driver's exceptions leak",
        "promises/test_faults.py::test_a_wrong_password_is_tried_once_and_never_shown",
        (
            "redis_registry/store/retrying.py",
            "raise translate(error, call.name, self.at(client, call)) from error",
            "raise error",
        ),
    ),
    mutant(
        "S3",
        "one loop's connections are used on another",
        "unit/test_executor.py::test_it_is_built_before_any_loop_and_used_from_two",
        (
            EXECUTOR,
            "self._lanes.pop(asyncio.get_running_loop(), {})",
            "dict[str, _Lane]()",
        ),
        (
            EXECUTOR,
            "lanes = self._lanes.get(loop)",
            "lanes = next(iter(self._lanes.values()), None)",
        ),
    ),
    mutant(
        "S4",
        "records of another format are guessed at",
        "promises/test_faults.py::test_records_of_another_format_are_refused_by_name",
        (
            LUA + "lib/open.lua",
            "if meta[1] and meta[1] ~= FORMAT then",
            "if false then",
        ),
    ),
    mutant(
        "S4",
        "what an earlier release has removed stays among who serves a name",
        "upgrade/test_records.py::test_what_the_old_forgets_leaves_nothing",
        (LUA + "read.lua", "missing(identity)", ""),
    ),
    mutant(
        "S4",
        "names that an earlier release has taken away find it",
        "upgrade/test_records.py::test_names_that_the_old_has_taken_away_find_it_no_more",
        (REPLIES, "i.model_name == of or of in i.serves", "i"),
    ),
    mutant(
        "S4",
        "an alias of an earlier release is misread",
        "upgrade/test_records.py::test_an_alias_of_the_old_is_followed_one_of_the_new_has_no_effect_on_it",
        (
            "redis_registry/wire/aliases.py",
            "at, *_, model, author",
            "at, model, author",
        ),
    ),
    mutant(
        "S4",
        "the script stores whatever a client lets through",
        "promises/test_faults.py::test_what_a_client_lets_through_the_script_refuses",
        (LUA + "register.lua", "if size > most then", "if false then"),
    ),
    mutant(
        "S1",
        "what an eviction took stays lost",
        "faults/test_damage.py::test_whatever_key_is_lost_heartbeats_and_sweeps_mend_the_rest",
        (
            LUA + "mend.lua",
            "mended = mended + added\n",
            "redis.call('ZREM', set, member)\n",
        ),
    ),
    mutant(
        "S1",
        "a revision that fell behind its stream stays there",
        "faults/test_access.py::test_whatever_right_is_missing_each_call_is_denied_once_and_all_is_mended_later",
        (
            LUA + "lib/open.lua",
            "redis.call('HSET', META, 'rev', reached)\n  error(",
            "error(",
        ),
    ),
    mutant(
        "S1",
        "a slow client is waited for",
        "http/test_limits.py::test_forty_slow_clients_are_left_in_time_and_others_are_served",
        (
            "redis_registry/http/protocol.py",
            "self._head_timer = self.loop.call_later(HEAD_SECS, self.transport.abort)",
            "self._head_timer = None",
        ),
    ),
    mutant(
        "S1",
        "who leaves waits anew for each of its lives",
        "workers/test_registry_away.py::test_several_lives_don_t_wait_one_after_the_other",
        (
            "redis_registry/roles/sending/announcing.py",
            "away = self._life.failures or self._sender.silent",
            "away = self._life.failures",
        ),
    ),
    mutant(
        "R2",
        "a place that is mended is not told",
        "faults/test_damage.py::test_a_view_that_was_read_without_them_hears_of_those_that_are_mended",
        (LUA + "mend.lua", "if placed > 0 then", "if placed > 9 then"),
    ),
    mutant(
        "R2",
        "a name's place that is mended is not told",
        "faults/test_damage.py::test_a_view_that_was_read_without_them_hears_of_those_that_are_mended",
        (LUA + "mend.lua", "placed = placed + put(SERVED", "put(SERVED"),
    ),
    mutant(
        "R2",
        "of a model that is listed again one instance is told",
        "faults/test_damage.py::test_a_view_that_was_read_without_them_hears_of_those_that_are_mended",
        (LUA + "mend.lua", "rev = rev + listed", "rev = rev"),
    ),
    mutant(
        "R2",
        "who lists a model again tells of itself alone",
        "faults/test_damage.py::test_a_view_that_was_read_without_a_model_hears_of_all_of_it_with_the_next_of_it",
        (
            LUA + "register.lua",
            "rev, cause = rev + 1, cause .. ', model lost'",
            "cause = cause .. ', model lost'",
        ),
    ),
]
