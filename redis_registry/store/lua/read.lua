#!lua flags=allow-oom
-- Reads instances, a page at a time, each judged by its deadline at this moment (L3): of all
-- models, or of one name, first those of the model, then those that also serve it. The
-- instance hashes (and, reading all models, the indexes) are named by the indexes read here, in
-- the same slot: one of the exceptions to "all keys in KEYS" (see docs/explanation/storage.md).
--
-- KEYS  1 meta  2 events  3 models  4 deadlines  5 guard  6 overrides  7 aliases  8 served
-- ARGV  1 header  2 actor  3 base of the partition's keys  4 name, or "" for all models
--       5 healthy only: 1 | 0
--       6 go on after model, or "served": among those that also serve the name
--       7 go on after instance  8 page size
--       9 sample: that many at random of the one name, or 0
--       10 stamp of the operators' orders (overrides and aliases) that the caller knows
--       11 follow an alias: 1 | 0
-- Reply {more: 1 | 0, model to go on after, instance to go on after, revision, epoch, now µs,
--        stamp of the orders, [[name, record, …], [alias, record, …]] or 0 when they are known,
--        name that the alias stands for or "", row, …}
--       Of several partitions this one may not hold what an alias stands for: then it is only told.
--       While there are overrides all rows are told: who is healthy is judged after them.
-- @include open
local MODELS, DEADLINES, GUARD, SERVED = KEYS[3], KEYS[4], KEYS[5], KEYS[8]
local BASE, only, healthy_only, page, sample =
  ARGV[3], ARGV[4], ARGV[5] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local held = {}
if redis.call('HLEN', GUARD) > 0 then
  local entries = redis.call('HGETALL', GUARD)
  for i = 1, #entries, 2 do
    if string.sub(entries[i + 1], 1, 4) == 'held' then held[entries[i]] = true end
  end
end
local orders = redis.call('HGET', META, 'orders')
local stamp, told, target = orders and epoch .. ':' .. orders or '', 0, ''
if stamp ~= ARGV[10] then
  told = { redis.call('HGETALL', KEYS[6]), redis.call('HGETALL', KEYS[7]) }
end
if orders and healthy_only and redis.call('HLEN', KEYS[6]) > 0 then healthy_only = false end
local alias = orders and ARGV[11] == '1' and redis.call('HGET', KEYS[7], only)
if alias then
  target = string.match(alias, ':([^:]*):[^:]*$') or '' -- else it is damaged
  if target ~= '' then only = target end
end
local reply = { 0, ARGV[6], ARGV[7], rev, epoch, now_text, stamp, told, target }
if target ~= '' and partitions ~= '1' then return reply end

-- healthy, protected or overdue: what the deadline says of a healthy record
local function state_of(terms, health, identity, deadline)
  if health ~= '1' or string.sub(terms, 2, 2) ~= '1' then return health end
  if not deadline then return 'overdue' end
  deadline = tonumber(deadline)
  if ahead(deadline, window) then return '1' end -- mostly, and cheaper
  local timeout = tonumber(string.match(terms, '^%d%d%l|(%d+)') or '0') * 1000
  if ahead(deadline, timeout) then return '1' end
  if effective(deadline, timeout) > now or held['*'] or held[string.match(identity, '^[^:]*')] then
    return 'protected'
  end
  return 'overdue'
end

-- What of the field "out" counts now; h: its time is over, and one probe may be claimed
local function out_now(out)
  local cause, till = string.match(out or '', '^(%l):(%d+)')
  if not cause then return '' end
  if tonumber(till) > now then return out end
  return cause == 'e' and 'h' .. string.sub(out, 2) or ''
end

-- An earlier release, which knows nothing of `served`, removes records only.
local function forget_served(identity)
  redis.call('ZREM', SERVED, only .. '|' .. identity)
end

local function read(wanted, missing)
  local identities, records, members = {}, {}, {}
  for _, identity in ipairs(wanted) do
    local record = redis.call('HMGET', BASE .. 'i:' .. identity, 'terms', 'life', 'spec', 'why',
      'load', 'out')
    if record[1] and record[2] then
      local n = #records + 1
      identities[n], records[n] = identity, record
      members[n] = identity .. ':' .. string.sub(record[1], 5)
    elseif missing then
      missing(identity)
    end
  end
  if #records == 0 then return end
  local deadlines = redis.call('ZMSCORE', DEADLINES, unpack(members))
  for i, record in ipairs(records) do
    local terms, life, deadline = record[1], record[2], deadlines[i]
    local state = state_of(terms, string.match(life, '^%w*'), identities[i], deadline)
    if not healthy_only or state == '1' or state == 'protected' then
      reply[#reply + 1] = identities[i] .. '|' .. terms .. '|' .. state .. '|' .. life .. '|'
        .. (deadline or '') .. '|' .. (record[4] or '') .. '|' .. (record[5] or '') .. '|'
        .. out_now(record[6]) .. '|' .. (record[3] or '')
    end
  end
end

-- Makes identities of `count` of these items: the first, and every `step`-th after it.
local function identities_of(model, items, step, count)
  local found = {}
  for i = 1, count do found[i] = model .. ':' .. items[1 + (i - 1) * step] end
  return found
end

local skip, first, last = #only + 2, '(' .. only .. '|', '(' .. only .. '}' -- "}" comes after "|"
if sample > 0 then
  local index = BASE .. 'm:' .. only
  local own, others = redis.call('ZCARD', index), redis.call('ZLEXCOUNT', SERVED, first, last)
  local wanted = math.min(own, sample)
  if own + others > sample then -- the clock rounds up or down, so that each is as likely as any
    wanted = math.floor(own * sample / (own + others) + now % 997 / 997)
  end
  local picked = redis.call('ZRANDMEMBER', index, wanted)
  read(identities_of(only, picked, 1, #picked))
  if others > 0 then
    -- Neighbours from a place that the clock chooses, in a ring.
    local rank, count = redis.call('ZLEXCOUNT', SERVED, '-', first), math.min(others, sample - #picked)
    local place, serving = now % others, {}
    while count > 0 do
      local here = math.min(count, others - place)
      for _, entry in ipairs(redis.call('ZRANGE', SERVED, rank + place, rank + place + here - 1)) do
        serving[#serving + 1] = string.sub(entry, skip)
      end
      place, count = 0, count - here
    end
    read(serving, forget_served)
  end
  return reply
end
local models
if ARGV[6] == 'served' then
  models = {}
elseif only ~= '' then
  models = { only, '0' }
else
  models = redis.call('ZRANGEBYSCORE', MODELS, ARGV[6], '+inf', 'WITHSCORES', 'LIMIT', 0, page + 1)
end
-- A model that was forgotten between two pages must not lend its place to the next one.
local after = models[2] == ARGV[6] and ARGV[7] or '0'
local left = page
for i = 1, #models, 2 do
  if left <= 0 then
    reply[1], reply[2], reply[3] = 1, models[i + 1], '0'
    return reply
  end
  local found = redis.call('ZRANGEBYSCORE', BASE .. 'm:' .. models[i], '(' .. after, '+inf',
    'WITHSCORES', 'LIMIT', 0, left + 1) -- one more than wanted tells whether there is more
  local count = math.min(#found / 2, left)
  read(identities_of(models[i], found, 2, count))
  if #found > 2 * left then
    reply[1], reply[2], reply[3] = 1, models[i + 1], found[2 * left]
    return reply
  end
  left = left - count
  after = '0'
end
if only ~= '' then
  after = ARGV[6] == 'served' and ARGV[7] or ''
  local found = redis.call('ZRANGEBYLEX', SERVED, first .. after, last, 'LIMIT', 0, left + 1)
  if #found == 0 then return reply end
  local serving = {}
  for i = 1, math.min(#found, left) do serving[i] = string.sub(found[i], skip) end
  read(serving, forget_served)
  if #found > left then
    reply[1], reply[2], reply[3] = 1, 'served', serving[left] or after
  end
end
return reply
