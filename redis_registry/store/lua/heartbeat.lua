#!lua flags=allow-oom
-- Moves the deadlines of up to 1,000 instances in one go. A member that is not there (unknown,
-- unhealthy, of another timeout or incarnation, unchecked) is answered, and left to revive.lua.
--
-- KEYS  1 meta  2 events  3 deadlines
-- ARGV  1 header  2 actor  3… groups of: timeout ms, how many members follow, member, …
-- Reply [member that missed, …]
-- @include open
local DEADLINES = KEYS[3]
local missed = {}
local at = 3
while at <= #ARGV do
  local deadline, first, last = now + ARGV[at] * 1000, at + 2, at + 1 + ARGV[at + 1]
  deadline = string.format('%d', deadline)
  local moved, n = {}, 0
  for i = first, last do
    moved[n + 1], moved[n + 2] = deadline, ARGV[i]
    n = n + 2
  end
  if redis.call('ZADD', DEADLINES, 'XX', 'CH', unpack(moved)) < last - first + 1 then
    local scores = redis.call('ZMSCORE', DEADLINES, unpack(ARGV, first, last))
    for i = first, last do
      if not scores[i - first + 1] then missed[#missed + 1] = ARGV[i] end
    end
  end
  at = last + 1
end
return missed
