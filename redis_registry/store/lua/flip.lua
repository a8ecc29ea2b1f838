#!lua flags=allow-oom
-- Flips overdue instances to unhealthy, each re-checked here: a heartbeat that races wins (L2).
--
-- KEYS  1 meta  2 events  3 lease  4 deadlines  5 down  6 living  7 guard  8 tally  9… instance
-- ARGV  1 header  2 actor  3 holder  4 token  5 epoch
--       6 guard: share|least|window µs|budget share|longest hold µs, or "" for none
--       7 JSON [[scope, overdue], …]: the scopes to judge, "*" for the partition
--       8… member, one for each instance key
-- Reply string of one letter each: f flipped, h held by the guard, l living, o orphan removed
-- @include open
-- @include fence
-- @include record
-- @include living
-- @include guard
local DEADLINES, DOWN, LIVING = KEYS[4], KEYS[5], KEYS[6]
redis.call('ZCARD', DEADLINES)
redis.call('ZCARD', DOWN)
for i = 6, 8 do redis.call('HLEN', KEYS[i]) end

if ARGV[6] ~= '' then
  local share, least, width, budget, hold =
    string.match(ARGV[6], '^([^|]+)|([^|]+)|([^|]+)|([^|]+)|([^|]+)$')
  guard.new({ guard = KEYS[7], tally = KEYS[8] }, tonumber(share), tonumber(least),
    tonumber(width), tonumber(budget), tonumber(hold))
  for _, judged in ipairs(cjson.decode(ARGV[7])) do
    local scope = judged[1]
    local count = scope == '*' and redis.call('ZCARD', DEADLINES)
      or redis.call('HGET', LIVING, scope)
    guard.judge(scope, tonumber(count) or 0, judged[2])
  end
end

local members = {}
for i = 8, #ARGV do members[i - 7] = ARGV[i] end
local scores = #members > 0 and redis.call('ZMSCORE', DEADLINES, unpack(members)) or {}
local letters, gone, down, dead = {}, {}, {}, {}
local function flip(i, identity, model, timeout, record)
  record[HEALTH], record[SINCE], record[REV] =
    'expired', now_text, string.format('%.0f', rev + 1)
  local beat = string.format('%.0f', tonumber(scores[i]) - timeout)
  emit('unhealthy', identity, 'expired', row_of(identity, record, 'expired', beat))
  redis.call('HSET', KEYS[i + 8], 'health', 'expired', 'since', now_text, 'beat', beat, 'rev',
    record[REV])
  gone[#gone + 1] = members[i]
  down[#down + 1] = now_text
  down[#down + 1] = identity
  dead[model] = (dead[model] or 0) + 1
  guard.count('*')
  guard.count(model)
end

for i, member in ipairs(members) do
  local identity, model, timeout = string.match(member, '^(([^:]*):[^:]*:[^:]*):(%d+):[^:]*$')
  timeout = timeout and tonumber(timeout) * 1000
  if not scores[i] or (identity and effective(tonumber(scores[i]), timeout) > now) then
    letters[i] = 'l'
  else
    local record = identity and load_record(KEYS[i + 8])
    if not record or record[HEALTH] ~= '1' or member_of(identity, record) ~= member then
      letters[i] = 'o'
      gone[#gone + 1] = member
      if model then dead[model] = (dead[model] or 0) + 1 end
    elseif guard.allows('*') and guard.allows(model) then
      letters[i] = 'f'
      flip(i, identity, model, timeout, record)
    else
      letters[i] = 'h'
    end
  end
end
if #gone > 0 then
  commit()
  redis.call('ZREM', DEADLINES, unpack(gone))
  if #down > 0 then redis.call('ZADD', DOWN, unpack(down)) end
  for model, count in pairs(dead) do count_living(LIVING, model, -count) end
end
guard.save()
return table.concat(letters)
