#!lua
-- Sets an operator's override, or replaces the one of its name (promise W6). Refused when memory
-- is full (no allow-oom), before anything was written.
--
-- KEYS  1 meta  2 events  3 overrides
-- ARGV  1 header  2 actor  3 name  4 operation: a call that is repeated changes nothing more
--       5 ends after µs, or 0 for never  6 what it says, JSON without "|"  7 most of a partition
-- Reply record: at µs:end µs or 0:operation:JSON;  "": too many
-- @include open
local OVERRIDES, name, operation, after = KEYS[3], ARGV[3], ARGV[4], tonumber(ARGV[5])
local old = redis.call('HGET', OVERRIDES, name)
if old and string.match(old, '^%d+:%d+:(%w+):') == operation then return old end
if not old and redis.call('HLEN', OVERRIDES) >= tonumber(ARGV[7]) then return '' end
local ends = after > 0 and string.format('%d', now + after) or '0'
local record = now_text .. ':' .. ends .. ':' .. operation .. ':' .. ARGV[6]
emit('overridden', 'operator', name .. ' ' .. record)
commit()
redis.call('HSET', META, 'orders', string.format('%d', rev))
local first = tonumber(redis.call('HGET', META, 'orders_end') or '0')
if after > 0 and (first == 0 or now + after < first) then
  redis.call('HSET', META, 'orders_end', ends)
end
redis.call('HSET', OVERRIDES, name, record)
return record
