#!lua
-- Registers an instance, or revives and updates the one that is there. Refused when memory is
-- full (no allow-oom), before anything was written.
--
-- Of two incarnations at one address the greater is the newer; it wins, in whatever order their
-- calls arrive. A later call of the older one changes nothing.
--
-- KEYS  1 meta  2 events  3 models  4 index  5 deadlines  6 down  7 living
--       8 instance  9 out  10 guard  11 served
-- ARGV  1 header  2 actor  3 identity  4 model  5 address  6 enabled  7 check  8 readiness
--       9 timeout ms  10 inc  11 spec  12 reason of the readiness, escaped  13 its order, or 0
--       14 mode: register | absent (whoever is there already only gets a heartbeat)
--       15 flapping: threshold|until down to|half life µs, or "" for none  16 share that may be out
--       17 base of the partition's keys  18 further names that it serves: name|name|…
-- Reply {revision of the record, 1 if it is new, epoch}, or {-1, incarnation that is there}: superseded

-- Clients refuse it themselves; one that does not must not store what everybody reads from then on.
-- In bytes: a character of a name or a reason takes up to twelve, escaped.
local MOST = { { 3, 9300, 'identity' }, { 4, 6144, 'model_name' }, { 5, 3100, 'host' },
  { 11, 65536, 'metadata' }, { 12, 6000, 'reason' }, { 18, 1573376, 'serves' } }
for _, field in ipairs(MOST) do
  local size, most, name = #ARGV[field[1]], field[2], field[3]
  if size > most then
    return redis.error_reply('RRTOOLARGE ' .. name .. ' ' .. size .. ' ' .. most)
  end
end
-- @include open
-- @include record
-- @include living
-- @include served
-- @include out
local MODELS, INDEX, DEADLINES, DOWN, LIVING, INSTANCE, OUT, GUARD, SERVED =
  KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local identity, model, address, absent = ARGV[3], ARGV[4], ARGV[5], ARGV[14] == 'absent'
for _, key in ipairs({ MODELS, INDEX, DEADLINES, DOWN, SERVED }) do redis.call('ZCARD', key) end
redis.call('HLEN', LIVING)
keeping.new({ out = OUT, living = LIVING, deadlines = DEADLINES, guard = GUARD }, ARGV[17], ARGV[16])
local old = load_record(INSTANCE)
local record = { enabled = ARGV[6], check = ARGV[7], readiness = ARGV[8], timeout = ARGV[9],
  inc = ARGV[10], spec = ARGV[11], why = '', out = '', flaps = old and old.flaps or '' }
local order = tonumber(ARGV[13])
if ARGV[12] ~= '' or order > 0 then
  record.why = now_text .. ':' .. ARGV[13] .. ':' .. ARGV[12]
end

local kind, cause
if not old then
  kind, cause = 'registered', absent and 'heartbeat of an unknown instance' or 'register'
elseif old.inc and standing(record.inc, old) == 'older' then
  return { -1, old.inc }
elseif old.inc and standing(record.inc, old) == 'newer' then
  kind, cause = 'registered', 'new incarnation'
  -- Failed calls were those of the life before; coming and going is the address's.
  if string.sub(old.out, 1, 2) == 'f:' then record.out = old.out end
else
  -- DB-GPT's rule: a repeated registration doesn't touch enabled and check. A part that can't
  -- be read is as good as none: registering again mends the record.
  local kept = { 'enabled', 'check', 'inc', 'out' }
  if absent then kept = { 'enabled', 'check', 'inc', 'out', 'spec', 'timeout' } end
  if absent or record.inc == '' or order < order_of(old.why) then
    record.readiness, record.why = old.readiness or record.readiness, old.why
  elseif record.why ~= '' and record.readiness == old.readiness
    and reason_of(record.why) == reason_of(old.why) then
    -- Said again: it has been so since then, and no event tells of anything else.
    record.why = said_at(old) .. string.sub(record.why, #now_text + 1)
  end
  for _, field in ipairs(kept) do record[field] = old[field] or record[field] end
  if old.health ~= '1' then
    kind, cause = 'healthy', absent and 'heartbeat' or 'register'
  elseif record.spec ~= old.spec or record.timeout ~= old.timeout
    or record.readiness ~= old.readiness
    or reason_of(record.why) ~= reason_of(old.why) then
    kind, cause = 'updated', 'register'
  end
end

-- A life that ended without a goodbye and is followed by another is a crash, noticed or not.
local flapped = old and (old.health == 'x' or (old.health == '1' and cause == 'new incarnation'))
  and count_flap(ARGV[15], model, identity, record)
record.terms = record.enabled .. record.check .. record.readiness .. '|' .. record.timeout .. ':'
  .. record.inc
record.timeout_us = tonumber(record.timeout) * 1000
-- Others are there, but their model is not listed: its place was lost (see mend.lua), and views that
-- were read anew since then were read without them. A revision that no event has makes all read anew.
if not old and not redis.call('ZSCORE', MODELS, model) and redis.call('ZCARD', INDEX) > 0 then
  rev, cause = rev + 1, cause .. ', model lost'
end
relive(record, '1', string.format('%d', now + record.timeout_us))
if old and old.health == '1' then record.since = old.since end
if not kind then record.rev = old.rev end
write_life(record)
if kind then
  emit(kind, cause, row_of(identity, record, '1'))
  commit()
end

local was_living = 0
if old then
  was_living = redis.call('ZREM', DEADLINES, member_of(identity, old))
  redis.call('ZREM', DOWN, identity)
else
  redis.call('ZADD', INDEX, record.rev, address)
  redis.call('ZADD', MODELS, 'NX', record.rev, model)
end
if record.check == '1' then
  redis.call('ZADD', DEADLINES, record.deadline, member_of(identity, record))
end
count_living(LIVING, { [model] = (record.check == '1' and 1 or 0) - was_living })
redis.call('HSET', INSTANCE, 'terms', record.terms, 'life', record.life, 'spec', record.spec)
if record.why ~= '' then
  redis.call('HSET', INSTANCE, 'why', record.why)
elseif old and old.why ~= '' then
  redis.call('HDEL', INSTANCE, 'why')
end
if cause == 'new incarnation' then redis.call('HDEL', INSTANCE, 'load', 'calls', 'ejected') end
if flapped then redis.call('HSET', INSTANCE, 'flaps', record.flaps) end
save_out(INSTANCE, identity, record.out, old and old.kept)
local served = old and redis.call('HGET', INSTANCE, 'serves') or ''
local serves_now = record.spec == ARGV[11] and ARGV[18] or served -- the names belong to the spec
save_serves(SERVED, INSTANCE, identity, served, serves_now)
return { tonumber(record.rev), old and 0 or 1, epoch }
