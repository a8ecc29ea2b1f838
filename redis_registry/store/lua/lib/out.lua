-- Keeping instances out of selection although they are healthy. Never the last of a model that
-- could work, and never more than a share of it.
--
-- out field  e:until µs:times in a row:claim   calls to it failed. After `until` one probe decides;
--                                              while it is claimed, that is when the claim ends
--            f:until µs                        it came and went too often; ends by itself
-- out key    identities of the records that have the field; all scores are 0, so that those of
--            a model are a range
-- flaps      penalty:at µs                     decays; only of those that ever came back from the dead
--
-- Needs record.lua, and keeping.new() before the rest and before the first write
local MOST_LOOKS, SAMPLE, WINDOW, MOST_HALF_LIVES = 512, 64, 32, 4 -- looks: at other records, in one call
local WEIGHTLESS = '\161w\203' .. string.rep('\0', 8) -- weight 0.0 in a spec, as msgpack writes it
local keeping = { models = {}, looks = MOST_LOOKS }

function keeping.new(keys, base, share)
  keeping.keys, keeping.base, keeping.share = keys, base, tonumber(share)
  redis.call('ZCARD', keys.out)
  if keys.living then redis.call('HLEN', keys.living) end
  if keys.deadlines then redis.call('ZCARD', keys.deadlines) end
  keeping.guarded = keys.guard and redis.call('HLEN', keys.guard) > 0
end

local function decayed(value, since, half_life)
  return value * 0.5 ^ (math.max(now - since, 0) / half_life)
end

local function keep_out(key, identity, out)
  redis.call('HSET', key, 'out', out)
  redis.call('ZADD', keeping.keys.out, 0, identity)
end

local function let_in(key, identity)
  redis.call('HDEL', key, 'out')
  redis.call('ZREM', keeping.keys.out, identity)
end

-- Writes what is new, if anything is.
local function save_out(key, identity, out, kept)
  if out == (kept or '') then return end
  if out ~= '' then keep_out(key, identity, out) else let_in(key, identity) end
end

-- Ready, enabled, not kept out, and within its deadline: no grace counts here. (An error, of a
-- key of another type, would come after the first write; here it is a record without fields.)
local function serves(identity)
  local found = redis.pcall('HMGET', keeping.base .. 'i:' .. identity, 'terms', 'life', 'spec', 'out')
  if not found[2] or string.sub(found[2], 1, 2) ~= '1|' or keeps(found[4]) then return false end
  local check = string.match(found[1] or '', '^1(%d)r|')
  if not check or string.find(found[3] or '', WEIGHTLESS, 1, true) then return false end
  if check == '0' then return true end
  local deadline = redis.call('ZSCORE', keeping.keys.deadlines, identity .. ':' .. string.sub(found[1], 5))
  return deadline and tonumber(deadline) > now
end

-- Of those of a model that have the field, how many it keeps from work now; some need not be, being
-- dead. Of many only a window is looked at, another one each time, and the others count: every
-- failure of a large model in trouble asks this.
local function count_out(model, enough)
  local from, to = '[' .. model .. ':', '(' .. model .. ';' -- ";" comes after ":"
  local total = redis.call('ZLEXCOUNT', keeping.keys.out, from, to)
  if total < enough then return total end
  local found = redis.call('ZRANGEBYLEX', keeping.keys.out, from, to, 'LIMIT',
    total > WINDOW and now % (total - WINDOW + 1) or 0,
    math.max(0, math.min(WINDOW, keeping.looks - SAMPLE)))
  keeping.looks = keeping.looks - #found
  local count = total - #found
  for _, identity in ipairs(found) do
    local record = redis.pcall('HMGET', keeping.base .. 'i:' .. identity, 'life', 'out')
    if string.sub(record[1] or '', 1, 2) == '1|' and keeps(record[2]) then count = count + 1 end
  end
  return count
end

-- Looks at some others at random; one that was found will do for the next question too.
local function others_serve(model, identity, known)
  if known.witness and known.witness ~= identity and serves(known.witness) then return true end
  local found = redis.pcall('ZRANDMEMBER', keeping.base .. 'm:' .. model, math.min(SAMPLE, keeping.looks))
  for _, address in ipairs(found) do
    local other = model .. ':' .. address
    keeping.looks = keeping.looks - 1
    if other ~= identity and serves(other) then
      known.witness = other
      return true
    end
  end
  return false
end

-- May one more of this model be kept out? Counts it, if so.
local function may_keep_out(model, identity)
  local known = keeping.models[model]
  if not known then
    local living = tonumber(redis.call('HGET', keeping.keys.living, model) or '0')
    local most = math.max(1, math.floor(keeping.share * living))
    known = { most = most, count = count_out(model, most) }
    keeping.models[model] = known
  end
  if known.count >= known.most or not others_serve(model, identity, known) then return false end
  known.count = known.count + 1
  return true
end

-- A text of the field with a later end.
local function until_at_least(out, later)
  local cause, till, rest = string.match(out, '^(%l):(%d+)(.*)$')
  return string.format('%s:%d%s', cause, math.max(tonumber(till), later), rest)
end

-- It came back from the dead: the penalty grows by 1, and above a threshold it is kept out until
-- it has decayed to another one. An outage of many says nothing of one.
-- rules: threshold|until it is down to|half life µs
local function count_flap(rules, model, identity, record)
  local suppress, reuse, half_life = string.match(rules, '^([^|]+)|([^|]+)|([^|]+)')
  if not suppress or recovering() then return false end
  if keeping.guarded then
    local held = redis.call('HMGET', keeping.keys.guard, '*', model)
    if held[1] or held[2] then return false end
  end
  suppress, reuse, half_life = tonumber(suppress), tonumber(reuse), tonumber(half_life)
  local penalty, at = string.match(record.flaps, '^([%d.]+):(%d+)$')
  penalty = decayed(tonumber(penalty or '0'), tonumber(at or '0'), half_life) + 1
  penalty = math.min(penalty, reuse * 2 ^ MOST_HALF_LIVES)
  record.flaps = string.format('%.3f:%d', penalty, now)
  if penalty < suppress then return true end
  local till = now + half_life * math.log(penalty / reuse) / math.log(2)
  if record.out ~= '' then
    record.out = until_at_least(record.out, till)
  elseif may_keep_out(model, identity) then
    record.out = string.format('f:%d', till)
  end
  return true
end
