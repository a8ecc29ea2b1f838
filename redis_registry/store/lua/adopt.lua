#!lua flags=allow-oom
-- Counts again what a living holder holds and Redis has lost, or has given back too early.
--
-- KEYS  1 meta  2 events  3 holders  4 flights  5 held
-- ARGV  1 header  2 actor  3 holder  4… reservation, identity, …
-- Reply [reservation that was missing, …]
-- @include open
-- @include flights
local HOLDERS, FLIGHTS, HELD, holder = KEYS[3], KEYS[4], KEYS[5], ARGV[3]
redis.call('ZCARD', HOLDERS)
redis.call('HLEN', FLIGHTS)
local missing, changes = {}, {}
for i = 4, #ARGV, 2 do
  local id, identity = ARGV[i], ARGV[i + 1]
  if redis.call('HSETNX', HELD, id, identity .. '|' .. now_text) == 1 then
    missing[#missing + 1] = id
    changes[identity] = changes[identity] or { 0, 0, 0 }
    changes[identity][1] = changes[identity][1] + 1
  end
end
count_flights(FLIGHTS, changes)
extend_lease(HOLDERS, holder)
return missing
