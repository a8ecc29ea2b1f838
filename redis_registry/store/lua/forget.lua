#!lua flags=allow-oom
-- Forgets instances that have been unhealthy for long enough (L6).
--
-- KEYS  1 meta  2 events  3 lease  4 models  5 deadlines  6 down  7 living  8 tally  9 guard
--       10 out  11 flights  12 served  13… index and instance
-- ARGV  1 header  2 actor  3 holder  4 token  5 epoch  6 forget after µs  7… identity
-- Reply number forgotten
-- @include open
-- @include fence
-- @include record
-- @include living
-- @include served
-- @include remove
local keys = { models = KEYS[4], deadlines = KEYS[5], down = KEYS[6], living = KEYS[7],
  tally = KEYS[8], guard = KEYS[9], out = KEYS[10],
  flights = KEYS[11], served = KEYS[12] }
for _, name in ipairs({ 'models', 'deadlines', 'down', 'out', 'served' }) do
  redis.call('ZCARD', keys[name])
end
for _, name in ipairs({ 'living', 'tally', 'guard', 'flights' }) do
  redis.call('HLEN', keys[name])
end
local forgotten = 0
for i = 7, #ARGV do
  local identity = ARGV[i]
  local model, address = string.match(identity, '^([^:]*):(.*)$')
  keys.index, keys.instance = KEYS[13 + 2 * (i - 7)], KEYS[14 + 2 * (i - 7)]
  redis.call('ZCARD', keys.index)
  local since = redis.call('ZSCORE', keys.down, identity)
  local record = load_record(keys.instance)
  if since and now - tonumber(since) >= tonumber(ARGV[6]) then
    if record and record.health ~= '1' then
      emit('forgotten', 'unhealthy since ' .. since, identity)
      commit()
      remove_record(keys, identity, address, model, record)
      forgotten = forgotten + 1
    else
      redis.call('ZREM', keys.down, identity) -- an orphan
    end
  end
end
return forgotten
