#!lua flags=allow-oom
-- How many reservations of each instance of a model are held, a page of the index at a time, or
-- of some that are named.
--
-- KEYS  1 meta  2 events  3 index  4 holders  5 flights
-- ARGV  1 header  2 actor  3 model  4 offset  5 page size  6… addresses, instead of a page
-- Reply {identity, count, …}; fewer than a page of them are the last ones
-- @include open
-- @include flights
local INDEX = KEYS[3]
local keys = { holders = KEYS[4], flights = KEYS[5] }
redis.call('HLEN', keys.flights)
local first = tonumber(ARGV[4])
local addresses = { unpack(ARGV, 6) }
if #addresses == 0 then
  addresses = redis.call('ZRANGE', INDEX, first, first + tonumber(ARGV[5]) - 1)
end
reclaim(keys, 200)
local identities, reply = {}, {}
for i, address in ipairs(addresses) do identities[i] = ARGV[3] .. ':' .. address end
if #identities == 0 then return reply end
for i, entry in ipairs(redis.call('HMGET', keys.flights, unpack(identities))) do
  reply[2 * i - 1], reply[2 * i] = identities[i], (flight_of(entry))
end
return reply
