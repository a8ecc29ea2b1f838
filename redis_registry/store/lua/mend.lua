#!lua flags=allow-oom
-- Walks through a set of the partition, a page at a time, and mends what does not agree: a record
-- without its places gets them back, a place without a record goes. No script leaves such a thing;
-- a Redis that evicts keys does, and somebody who deletes them. The instance hashes and indexes are
-- named by what is read here, as in read.lua.
--
-- KEYS  1 meta  2 events  3 lease  4 models  5 deadlines  6 down  7 living  8 out  9 served
--       10 tally  11 guard
-- ARGV  1 header  2 actor  3 holder  4 token  5 epoch  6 base of the partition's keys
--       7 the set: deadlines | down | out | served | models | m:model  8 cursor  9 page size
-- Reply {cursor to go on with, or "0", how many places were mended, [model, …]}
-- @include open
-- @include fence
-- @include record
-- @include living
local MODELS, DEADLINES, DOWN, LIVING, OUT, SERVED = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local BASE, which, cursor = ARGV[6], ARGV[7], ARGV[8]
for _, key in ipairs({ MODELS, DEADLINES, DOWN, OUT, SERVED }) do redis.call('ZCARD', key) end
for _, key in ipairs({ LIVING, KEYS[10], KEYS[11] }) do redis.call('HLEN', key) end
local page = redis.call('ZSCAN', BASE .. which, cursor, 'COUNT', ARGV[9])
local mended, living, models = 0, {}, {}

local function put(set, member, score)
  local added = redis.call('ZADD', set, 'NX', score, member)
  mended = mended + added
  return added
end

local function drop(set, member)
  local gone = redis.call('ZREM', set, member)
  mended = mended + gone
  return gone
end

local function count(model, by) living[model] = (living[model] or 0) + by end

local function forget_model(model)
  if redis.call('EXISTS', BASE .. 'm:' .. model) == 1 then return end
  drop(MODELS, model)
  redis.call('HDEL', KEYS[10], model)
  redis.call('HDEL', KEYS[11], model)
end

-- Nothing is left of it but that it was there.
local function lost(identity, model, address)
  emit('removed', 'record lost', identity)
  commit()
  drop(DOWN, identity)
  drop(OUT, identity)
  drop(BASE .. 'm:' .. model, address)
  forget_model(model)
end

-- Who lost its deadline gets one timeout to beat: the deadline in its record is an old one.
local function restore(identity, model, address, record)
  if record.health ~= '1' then
    put(DOWN, identity, record.since)
  else
    drop(DOWN, identity)
    if record.check == '1' then
      local deadline = string.format('%d', now + record.timeout_us)
      count(model, put(DEADLINES, member_of(identity, record), deadline))
    end
  end
  local listed = put(MODELS, model, record.rev)
  local placed = listed + put(BASE .. 'm:' .. model, address, record.rev)
  for name in string.gmatch(record.serves or '', '[^|]+') do
    placed = placed + put(SERVED, name .. '|' .. identity, 0)
  end
  if placed > 0 then
    -- Views that were read anew meanwhile were read without it; or, where the model was not listed,
    -- without all of it: a revision that no event has makes them read anew.
    rev = rev + listed
    record.rev = string.format('%d', rev + 1)
    write_life(record)
    emit('updated', 'place lost', row_of(identity, record, record.health))
    commit()
    redis.call('HSET', BASE .. 'i:' .. identity, 'life', record.life)
  end
  if record.kept then put(OUT, identity, 0) end
end

-- The record, `nil` where there is none, and whether it may be mended: not if it can't be read, or
-- a key of it is of another type. Registering again mends that.
local function look(identity, model)
  local names = redis.pcall('HGET', BASE .. 'i:' .. identity, 'serves')
  local index = redis.pcall('ZCARD', BASE .. 'm:' .. model)
  if (type(names) == 'table' and names.err) or type(index) == 'table' then return nil, false end
  local record = load_record(BASE .. 'i:' .. identity)
  if not record then return nil, true end
  record.serves = names
  return record, record.check and tonumber(record.since) and tonumber(record.rev) and true or false
end

local checked, all_sound = 0, true
local function mend(item)
  if which == 'models' then
    models[#models + 1] = item
    return forget_model(item)
  end
  local text = item
  if which == 'deadlines' then text = string.match(item, '^(.*):%d+:[%w_-]*$') or '' end
  if which == 'served' then text = string.match(item, '|(.*)$') or '' end
  if string.sub(which, 1, 2) == 'm:' then text = string.sub(which, 3) .. ':' .. item end
  local model, address = string.match(text, '^([^:|]*):([^:|]*:%d+)$')
  if not model then return drop(BASE .. which, item) end
  local record, sound = look(text, model)
  all_sound = all_sound and sound
  if not sound then return end
  local deadline = record and record.health == '1' and record.check == '1' and member_of(text, record)
  if deadline then checked = checked + 1 end
  if which == 'deadlines' and item ~= deadline then count(model, -drop(DEADLINES, item)) end
  if which == 'out' and not (record and record.kept) then drop(OUT, item) end
  if which == 'served' then
    local name = string.match(item, '^(.*)|')
    local names = '|' .. (record and record.serves or '') .. '|'
    if not string.find(names, '|' .. name .. '|', 1, true) then drop(SERVED, item) end
  end
  if record then
    restore(text, model, address, record)
  elseif which ~= 'out' and which ~= 'served' then
    lost(text, model, address)
  end
end

for i = 1, #page[2], 2 do mend(page[2][i]) end
count_living(LIVING, living)
-- All of a model were seen, so its count is known too.
if string.sub(which, 1, 2) == 'm:' and cursor == '0' and page[1] == '0' and all_sound then
  local model = string.sub(which, 3)
  local known = redis.call('HGET', LIVING, model)
  if checked ~= tonumber(known or '0') then
    mended = mended + 1
    if checked > 0 then redis.call('HSET', LIVING, model, checked) else redis.call('HDEL', LIVING, model) end
  end
end
return { page[1], mended, models }
