#!lua flags=allow-oom
-- What the partition knows of itself.
--
-- KEYS  1 meta  2 events  3 lease  4 deadlines  5 down  6 models  7 guard
-- ARGV  1 header  2 actor
-- Reply {now µs, living, overdue, down, models, events, end of the recovery µs or 0,
--        [meta…], [lease…], [guard…], maxmemory-policy or ""}
-- @include open
local memory = redis.pcall('INFO', 'memory') -- fakeredis has none
local policy = type(memory) == 'string' and string.match(memory, 'maxmemory_policy:([%w-]+)') or ''
local horizon = recovering() and math.min(recovery_from, now) or now
return { now, redis.call('ZCARD', KEYS[4]),
  redis.call('ZCOUNT', KEYS[4], '-inf', string.format('%d', horizon)),
  redis.call('ZCARD', KEYS[5]), redis.call('ZCARD', KEYS[6]), redis.call('XLEN', EVENTS),
  recovering() and recovery_ends() or 0,
  redis.call('HGETALL', META), redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[7]),
  policy }
