#!lua flags=allow-oom
-- Moves the deadlines of many instances in one go. A member that is not there (unknown,
-- unhealthy, of another timeout or incarnation, unchecked) is answered, and left to revive.lua.
--
-- KEYS  1 meta  2 events  3 deadlines
-- ARGV  1 header  2 actor  3 JSON [[timeout ms, [member, …]], …]
-- Reply [member that missed, …]
-- @include open
local DEADLINES = KEYS[3]
local BATCH = 1000 -- Lua's stack holds 8,000 values
local missed = {}
for _, group in ipairs(cjson.decode(ARGV[3])) do
  local deadline = string.format('%d', now + group[1] * 1000)
  local members = group[2]
  for first = 1, #members, BATCH do
    local last = math.min(first + BATCH - 1, #members)
    local pairs_, n = {}, 0
    for i = first, last do
      pairs_[n + 1], pairs_[n + 2] = deadline, members[i]
      n = n + 2
    end
    if redis.call('ZADD', DEADLINES, 'XX', 'CH', unpack(pairs_)) < last - first + 1 then
      local scores = redis.call('ZMSCORE', DEADLINES, unpack(members, first, last))
      for i = first, last do
        if not scores[i - first + 1] then missed[#missed + 1] = members[i] end
      end
    end
  end
end
return missed
