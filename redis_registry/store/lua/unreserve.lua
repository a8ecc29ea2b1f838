#!lua flags=allow-oom
-- Gives reservations back; of what isn't held any more nothing is changed.
--
-- KEYS  1 meta  2 events  3 holders  4 flights  5 held
-- ARGV  1 header  2 actor  3 holder  4… reservation
-- Reply how many were held
-- @include open
-- @include flights
local HELD, found = KEYS[5], {}
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
local values = redis.call('HMGET', HELD, unpack(ARGV, 4))
for i = 1, #values do found[2 * i - 1], found[2 * i] = ARGV[3 + i], values[i] end
return give_back({ holders = KEYS[3], flights = KEYS[4] }, ARGV[3], HELD, found, true)
