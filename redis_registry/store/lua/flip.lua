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

local members = {}
for i = 8, #ARGV do members[i - 7] = ARGV[i] end
-- Mostly these are the very lowest ranks: then one walk along them finds all deadlines, and
-- another removes them, where looking each up takes three times as long.
local scores, lowest = {}, #members > 0
local found = lowest and redis.call('ZRANGE', DEADLINES, 0, #members - 1, 'WITHSCORES')
for i, member in ipairs(members) do
  lowest = lowest and found[2 * i - 1] == member
  scores[i] = found[2 * i]
end
if #members > 0 and not lowest then
  scores = redis.call('ZMSCORE', DEADLINES, unpack(members))
end
if ARGV[6] ~= '' then
  local share, least, width, budget, hold =
    string.match(ARGV[6], '^([^|]+)|([^|]+)|([^|]+)|([^|]+)|([^|]+)$')
  guard.new({ guard = KEYS[7], tally = KEYS[8] }, tonumber(share), tonumber(least),
    tonumber(width), tonumber(budget), tonumber(hold))
  -- The caller has counted all of these as overdue; those that are back, or that this very call
  -- has flipped before its answer was lost, aren't.
  local past = { ['*'] = 0 }
  for i, member in ipairs(members) do
    if not scores[i] or tonumber(scores[i]) > now then
      local model = string.match(member, '^[^:]*')
      past[model], past['*'] = (past[model] or 0) + 1, past['*'] + 1
    end
  end
  for _, judged in ipairs(cjson.decode(ARGV[7])) do
    local scope = judged[1]
    local count = scope == '*' and redis.call('ZCARD', DEADLINES)
      or redis.call('HGET', LIVING, scope)
    guard.judge(scope, tonumber(count) or 0, math.max(judged[2] - (past[scope] or 0), 0))
  end
end

-- This loop is what mass expiry waits for: each string that Lua makes is hashed whole, and each
-- table field looked up, so the event is one expression and nothing is made to be thrown away.
local call, format, byte, find, match, sub =
  redis.call, string.format, string.byte, string.find, string.match, string.sub
local guarded, recovered = ARGV[6] ~= '', recovery_at > 0
local began = 'x|' .. now_text .. '|'
local head = event_head('unhealthy', 'expired')
local model, prefix = '', ':' -- of the member before; members of a model come together
local letters, gone, down, dead, taken, flipped = {}, {}, {}, {}, 0, 0

-- Healthy, and the record that this member is of?
local function intact(member, key, identity, terms, life)
  return life and byte(life, 1) == 49 and byte(life, 2) == 124 -- "1|"
    and find(member, sub(terms, 5), #identity + 2, true) == #identity + 2
    and find(key, identity, -#identity, true)
end

for i, member in ipairs(members) do
  local deadline = tonumber(scores[i])
  if not deadline or deadline > now then
    letters[i] = 'l'
  else
    local key = KEYS[i + 8]
    local found = call('HMGET', key, 'terms', 'life', 'spec')
    local terms = found[1]
    local identity = terms and sub(member, 1, 2 - #terms)
    if find(member, prefix, 1, true) ~= 1 then
      model = match(member, '^[^:]*')
      prefix = model .. ':'
    end
    if not terms or not intact(member, key, identity, terms, found[2]) then
      letters[i] = 'o'
      taken = taken + 1
      gone[taken] = member
      dead[model] = (dead[model] or 0) - 1
    elseif recovered and effective(deadline, tonumber(match(terms, '^%d%d%l|(%d+)')) * 1000) > now then
      letters[i] = 'l'
    elseif not guarded or (guard.allows('*') and guard.allows(model)) then
      letters[i] = 'f'
      rev = rev + 1
      local id = format('%d', rev)
      local life = began .. scores[i] .. '|' .. id
      append(id, head,
        identity .. '|' .. terms .. '|x|' .. life .. '|||||' .. (found[3] or ''))
      call('HSET', key, 'life', life)
      taken = taken + 1
      gone[taken] = member
      down[2 * flipped + 1], down[2 * flipped + 2] = now_text, identity
      flipped = flipped + 1
      dead[model] = (dead[model] or 0) - 1
      if guarded then
        guard.count('*')
        guard.count(model)
      end
    else
      letters[i] = 'h'
    end
  end
end
if taken > 0 then
  commit()
  if lowest and taken == #members then
    redis.call('ZREMRANGEBYRANK', DEADLINES, 0, taken - 1)
  else
    redis.call('ZREM', DEADLINES, unpack(gone))
  end
  if flipped > 0 then
    redis.call('XTRIM', EVENTS, 'MAXLEN', '~', events_kept) -- once, not with each event
    redis.call('ZADD', DOWN, unpack(down))
  end
  count_living(LIVING, dead)
end
guard.save()
return table.concat(letters)
