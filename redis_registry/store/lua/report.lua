#!lua flags=allow-oom
-- Heartbeats that carry a report of each instance's load; else as heartbeat.lua.
--
-- KEYS  1 meta  2 events  3 deadlines  4… instance
-- ARGV  1 header  2 actor  3… for each instance: timeout ms, member, load
-- Reply [epoch, member that missed, …]
-- @include open
local DEADLINES = KEYS[3]
redis.call('ZCARD', DEADLINES)
local moved, members, n = {}, {}, 0
for i = 3, #ARGV, 3 do
  n = n + 1
  members[n] = ARGV[i + 1]
  moved[2 * n - 1], moved[2 * n] = string.format('%d', now + ARGV[i] * 1000), ARGV[i + 1]
end
local missed = { epoch }
if redis.call('ZADD', DEADLINES, 'XX', 'CH', unpack(moved)) < n then
  for i, score in ipairs(redis.call('ZMSCORE', DEADLINES, unpack(members))) do
    if not score then missed[#missed + 1] = members[i] end
  end
end
for i, member in ipairs(members) do
  -- An instance that isn't checked has no deadline, but a load.
  local terms = redis.pcall('HGET', KEYS[i + 3], 'terms') -- one damaged key spoils no other
  if type(terms) == 'string' and string.sub(member, 3 - #terms) == ':' .. string.sub(terms, 5) then
    redis.call('HSET', KEYS[i + 3], 'load', ARGV[3 * i + 2])
  end
end
return missed
