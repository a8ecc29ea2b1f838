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
local record = { ARGV[6], ARGV[7], ARGV[8], ARGV[9], '1', '', now_text, now_text, ARGV[10] }

local kind, cause
if not old then
  kind, cause = 'registered', mode == 'absent' and 'heartbeat of an unknown instance' or 'register'
else
  if mode == 'absent' then
    record[SPEC], record[TIMEOUT], record[INC] = old[SPEC], old[TIMEOUT], old[INC]
  end
  local reborn = record[INC] ~= '' and record[INC] ~= old[INC]
  if not reborn then
    -- DB-GPT's rule: a repeated registration doesn't touch these two, nor an incarnation.
    record[ENABLED], record[CHECK] = old[ENABLED], old[CHECK]
    record[INC] = old[INC]
  end
  if reborn then
    kind, cause = 'registered', 'new incarnation'
  elseif old[HEALTH] ~= '1' then
    kind, cause = 'healthy', mode == 'absent' and 'heartbeat' or 'register'
  elseif record[SPEC] ~= old[SPEC] or record[TIMEOUT] ~= old[TIMEOUT] then
    kind, cause = 'updated', 'register'
  end
  record[REV] = old[REV]
  if old[HEALTH] == '1' then record[SINCE] = old[SINCE] end
end

if kind then
  record[REV] = string.format('%.0f', rev + 1)
  emit(kind, identity, cause, row_of(identity, record, '1', now_text))
  commit()
end
local was_living = 0
if old then
  was_living = redis.call('ZREM', DEADLINES, member_of(identity, old))
  redis.call('ZREM', DOWN, identity)
else
  redis.call('ZADD', INDEX, record[REV], address)
  redis.call('ZADD', MODELS, 'NX', record[REV], model)
end
local is_living = record[CHECK] == '1' and 1 or 0
if is_living == 1 then
  redis.call('ZADD', DEADLINES, string.format('%.0f', now + timeout_us(record)),
    member_of(identity, record))
end
count_living(LIVING, model, is_living - was_living)
local flat = {}
for i, field in ipairs(FIELDS) do
  if field ~= 'beat' or is_living == 0 then
    flat[#flat + 1] = field
    flat[#flat + 1] = record[i]
  end
end
redis.call('HSET', INSTANCE, unpack(flat))
return { tonumber(record[REV]), old and 0 or 1 }
