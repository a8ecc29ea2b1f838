#!lua flags=allow-oom
-- A heartbeat that missed: decides for each instance why, and revives what may be revived.
--
-- KEYS  1 meta  2 events  3 deadlines  4 down  5 living  6… instance
-- ARGV  1 header  2 actor  3… member as the caller believes it (identity:timeout:inc)
-- Reply [tail, …]: "timeout:inc" of the record that beats now, "unknown", or "superseded"
-- @include open
-- @include record
-- @include living
local DEADLINES, DOWN, LIVING = KEYS[3], KEYS[4], KEYS[5]
redis.call('ZCARD', DEADLINES)
redis.call('ZCARD', DOWN)
redis.call('HLEN', LIVING)
local records = {}
for i = 6, #KEYS do records[i - 5] = load_record(KEYS[i]) or false end

local reply = {}
for i, record in ipairs(records) do
  local identity, model, inc =
    string.match(ARGV[i + 2], '^(([^:]*):[^:]*:[^:]*):[^:]*:([^:]*)$')
  local INSTANCE = KEYS[i + 5]
  if not record then
    reply[i] = 'unknown'
  elseif inc ~= '' and inc ~= record[INC] then
    reply[i] = 'superseded'
  else
    if record[HEALTH] ~= '1' then
      record[HEALTH], record[SINCE], record[REV] = '1', now_text, string.format('%.0f', rev + 1)
      emit('healthy', identity, 'heartbeat', row_of(identity, record, '1', now_text))
      redis.call('HSET', INSTANCE, 'health', '1', 'since', now_text, 'rev', record[REV])
      redis.call('ZREM', DOWN, identity)
    end
    if record[CHECK] == '1' then
      -- Without XX: a record that lost its deadline gets it back.
      count_living(LIVING, model, redis.call('ZADD', DEADLINES,
        string.format('%.0f', now + timeout_us(record)), member_of(identity, record)))
    else
      redis.call('HSET', INSTANCE, 'beat', now_text)
    end
    reply[i] = (record[TIMEOUT] or '0') .. ':' .. (record[INC] or '')
  end
end
commit()
return reply
