#!lua flags=allow-oom
-- A heartbeat that missed: decides for each instance why, and revives what may be revived.
--
-- KEYS  1 meta  2 events  3 deadlines  4 down  5 living  6 out  7 guard  8… instance
-- ARGV  1 header  2 actor  3 flapping: threshold|until down to|half life µs, or "" for none
--       4 share that may be out  5 base of the partition's keys
--       6… identity:inc, which the caller claims to be, or nothing
-- Reply [tail, …]: "timeout:inc" of the record that beats now, "unknown", or "superseded"
-- @include open
-- @include record
-- @include living
-- @include out
local DEADLINES, DOWN, LIVING, OUT, GUARD = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
redis.call('ZCARD', DEADLINES)
redis.call('ZCARD', DOWN)
redis.call('HLEN', LIVING)
keeping.new({ out = OUT, living = LIVING, deadlines = DEADLINES, guard = GUARD }, ARGV[5], ARGV[4])
local records = {}
for i = 8, #KEYS do records[i - 7] = load_record(KEYS[i]) or false end

local reply, living = {}, {}
for i, record in ipairs(records) do
  local identity, model, inc =
    string.match(ARGV[i + 5], '^(([^:]*):[^:]*:[^:]*):([^:]*)$')
  local INSTANCE = KEYS[i + 7]
  if not record then
    reply[i] = 'unknown'
  elseif not record.check then
    reply[i] = 'unknown' -- unreadable: registering again mends it
  elseif standing(inc, record) ~= 'current' then
    -- The registration of a newer one was lost with the registry's memory; it must come again.
    reply[i] = standing(inc, record) == 'newer' and 'unknown' or 'superseded'
  else
    local revived = record.health ~= '1'
    local flapped = record.health == 'x'
      and count_flap(ARGV[3], model, identity, record)
    local deadline = string.format('%d', now + record.timeout_us)
    if revived then relive(record, '1', deadline) end
    record.deadline = deadline
    write_life(record)
    if revived then
      emit('healthy', 'heartbeat', row_of(identity, record, '1'))
      redis.call('ZREM', DOWN, identity)
    end
    redis.call('HSET', INSTANCE, 'life', record.life)
    if flapped then
      redis.call('HSET', INSTANCE, 'flaps', record.flaps)
      save_out(INSTANCE, identity, record.out, record.kept)
    end
    if record.check == '1' then
      -- Without XX: a record that lost its deadline gets it back.
      living[model] = (living[model] or 0)
        + redis.call('ZADD', DEADLINES, deadline, member_of(identity, record))
    end
    reply[i] = string.sub(record.terms, 5)
  end
end
count_living(LIVING, living)
commit()
return reply
