#!lua flags=allow-oom
-- How many reservations of each of these instances are held.
--
-- KEYS  1 meta  2 events  3 holders  4 flights
-- ARGV  1 header  2 actor  3… identity
-- Reply [count, …]
-- @include open
-- @include flights
local keys = { holders = KEYS[3], flights = KEYS[4] }
redis.call('HLEN', keys.flights)
reclaim(keys, 200)
local reply = {}
for i, entry in ipairs(redis.call('HMGET', keys.flights, unpack(ARGV, 3))) do
  reply[i] = (flight_of(entry))
end
return reply
