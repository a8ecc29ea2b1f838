#!lua flags=allow-oom
-- Renews a holder's lease, and tells what the holder could not know.
--
-- KEYS  1 meta  2 events  3 holders  4 held
-- ARGV  1 header  2 actor  3 holder  4 most it can hold  5 epoch it has seen, or ""
-- Reply {1 if its lease had not ended and the epoch is the same, epoch, how many it holds,
--        [reservation that it may not know of, …]}
-- @include open
-- @include flights
local HOLDERS, HELD, holder = KEYS[3], KEYS[4], ARGV[3]
local ends, there = redis.call('ZSCORE', HOLDERS, holder), redis.call('HLEN', HELD)
local same = ARGV[5] == '' or ARGV[5] == epoch
local kept = same and ends and effective(tonumber(ends), lease_of(holder)) > now
local ids = {}
if there > tonumber(ARGV[4]) or not same then ids = redis.call('HRANDFIELD', HELD, 500) end
if there > 0 then extend_lease(HOLDERS, holder) end
return { kept and 1 or 0, epoch, there, ids }
