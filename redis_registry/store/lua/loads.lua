#!lua flags=allow-oom
-- What the instances of a model last reported of their work, a page at a time. The hashes are
-- named by the index read here, as in read.lua.
--
-- KEYS  1 meta  2 events  3 index
-- ARGV  1 header  2 actor  3 base of the partition's keys  4 model  5 go on after  6 page size
-- Reply {more: 1 | 0, where to go on, identity, load, …}: of those that have reported
-- @include open
local BASE, model, page = ARGV[3], ARGV[4], tonumber(ARGV[6])
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[5], '+inf', 'WITHSCORES', 'LIMIT',
  0, page + 1)
local more = #found > 2 * page
local reply = { more and 1 or 0, more and found[2 * page] or '0' }
for i = 1, math.min(#found, 2 * page), 2 do
  local identity = model .. ':' .. found[i]
  local load = redis.call('HGET', BASE .. 'i:' .. identity, 'load')
  if load then
    reply[#reply + 1] = identity
    reply[#reply + 1] = load
  end
end
return reply
