#!lua flags=allow-oom
-- Gives back what dead holders held, for the time when nobody reserves. It goes by the holders'
-- own leases at this moment, so it needs no term.
--
-- KEYS  1 meta  2 events  3 holders  4 flights
-- ARGV  1 header  2 actor
-- Reply how many were given back; after 0 there is nothing left to do
-- @include open
-- @include flights
redis.call('HLEN', KEYS[4])
return reclaim({ holders = KEYS[3], flights = KEYS[4] }, 200)
