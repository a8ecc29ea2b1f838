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
local began = 'expired|' .. now_text .. '|'

local function flip(i, identity, model, terms, spec)
  -- As relive() and row_of() would, without the tables: this is what mass expiry waits for.
  local life = began .. scores[i] .. '|' .. string.format('%d', rev + 1)
  emit('unhealthy', 'expired', identity .. '|' .. terms .. '|expired|' .. life .. '||' .. spec)
  redis.call('HSET', KEYS[i + 8], 'life', life)
  gone[#gone + 1] = members[i]
  down[#down + 1] = now_text
  down[#down + 1] = identity
  dead[model] = (dead[model] or 0) + 1
  guard.count('*')
  guard.count(model)
end

for i, member in ipairs(members) do
  local deadline = tonumber(scores[i])
  if not deadline or deadline > now then
    letters[i] = 'l'
  else
    local found = redis.call('HMGET', KEYS[i + 8], 'terms', 'life', 'spec')
    local tail = found[1] and string.sub(found[1], 5)
    local identity = tail and string.sub(member, 1, -2 - #tail)
    local model = string.match(member, '^[^:]*')
    if not tail or identity .. ':' .. tail ~= member or string.sub(found[2] or '', 1, 2) ~= '1|'
      or string.sub(KEYS[i + 8], -#identity) ~= identity then
      letters[i] = 'o'
      gone[#gone + 1] = member
      dead[model] = (dead[model] or 0) + 1
    elseif effective(deadline, (tonumber(string.match(tail, '^%d+')) or 0) * 1000) > now then
      letters[i] = 'l'
    elseif guard.allows('*') and guard.allows(model) then
      letters[i] = 'f'
      flip(i, identity, model, found[1], found[3] or '')
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
