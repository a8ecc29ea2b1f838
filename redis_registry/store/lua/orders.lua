#!lua flags=allow-oom
-- The operators' overrides and aliases.
--
-- KEYS  1 meta  2 events  3 overrides  4 aliases
-- ARGV  1 header  2 actor
-- Reply {now µs, [name, record, …], [alias, record, …]}
-- @include open
return { now_text, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]) }
