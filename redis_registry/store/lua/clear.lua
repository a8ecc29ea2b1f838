#!lua flags=allow-oom
-- Clears an operator's override, or removes an alias.
--
-- KEYS  1 meta  2 events  3 orders
-- ARGV  1 header  2 actor  3 name  4 operation: a call that is repeated answers the same
--       5 kind of the event  6 who and why, escaped
-- Reply 1: done;  0: there is none
-- @include open
local ORDERS, name, operation = KEYS[3], ARGV[3], ARGV[4]
local old = redis.call('HGET', ORDERS, name)
if not old then
  return redis.call('HGET', META, 'orders_cleared') == operation and 1 or 0
end
emit(ARGV[5], ARGV[6], name .. ' ' .. old)
commit()
redis.call('HSET', META, 'orders', string.format('%d', rev), 'orders_cleared', operation)
redis.call('HDEL', ORDERS, name)
return 1
