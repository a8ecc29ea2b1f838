#!lua
-- Registers an instance, or revives and updates the one that is there. Refused when memory is
-- full (no allow-oom), before anything was written.
--
-- KEYS  1 meta  2 events  3 models  4 index  5 deadlines  6 down  7 living
--       8 instance
-- ARGV  1 header  2 actor  3 identity  4 model  5 address  6 enabled  7 check  8 timeout ms
--       9 inc  10 spec  11 mode: register | absent (whoever is there already only gets a heartbeat)
-- Reply {revision of the record, 1 if it is new}
-- @include open
-- @include record
-- @include living
local MODELS, INDEX, DEADLINES, DOWN, LIVING, INSTANCE =
  KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local identity, model, address, mode = ARGV[3], ARGV[4], ARGV[5], ARGV[11]
for _, key in ipairs({ MODELS, INDEX, DEADLINES, DOWN }) do redis.call('ZCARD', key) end
redis.call('HLEN', LIVING)
local old = load_record(INSTANCE)
local enabled, check, timeout, inc, spec = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local kind, cause
if not old then
  kind, cause = 'registered', mode == 'absent' and 'heartbeat of an unknown instance' or 'register'
else
  -- A part that can't be read is as good as none: registering again mends the record.
  if mode == 'absent' then
    spec, timeout, inc = old.spec, old.timeout or timeout, old.inc or inc
  end
  local reborn = inc ~= '' and inc ~= old.inc
  if not reborn then
    -- DB-GPT's rule: a repeated registration doesn't touch these two, nor an incarnation.
    enabled, check, inc = old.enabled or enabled, old.check or check, old.inc or inc
  end
  if reborn then
    kind, cause = 'registered', 'new incarnation'
  elseif old.health ~= '1' then
    kind, cause = 'healthy', mode == 'absent' and 'heartbeat' or 'register'
  elseif spec ~= old.spec or timeout ~= old.timeout then
    kind, cause = 'updated', 'register'
  end
end

local record = {
  terms = enabled .. '|' .. check .. '|' .. timeout .. ':' .. inc,
  spec = spec,
  timeout_us = tonumber(timeout) * 1000,
}
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
if check == '1' then redis.call('ZADD', DEADLINES, record.deadline, member_of(identity, record)) end
count_living(LIVING, { [model] = (check == '1' and 1 or 0) - was_living })
redis.call('HSET', INSTANCE, 'terms', record.terms, 'life', record.life, 'spec', spec)
return { tonumber(record.rev), old and 0 or 1 }
