#!lua flags=allow-oom
-- Makes an instance unhealthy by its own wish, or removes it.
--
-- KEYS  1 meta  2 events  3 models  4 index  5 deadlines  6 down  7 living
--       8 instance  9 tally  10 guard  11 out  12 flights  13 served
-- ARGV  1 header  2 actor  3 identity  4 model  5 address  6 inc or ""  7 remove: 1 | 0
-- Reply revision of the change; 0: nothing to change; -1: superseded
-- @include open
-- @include record
-- @include living
-- @include served
-- @include remove
-- @include out
local keys = { models = KEYS[3], index = KEYS[4], deadlines = KEYS[5], down = KEYS[6],
  living = KEYS[7], instance = KEYS[8], tally = KEYS[9], guard = KEYS[10],
  out = KEYS[11], flights = KEYS[12], served = KEYS[13] }
local identity, model, address, inc, remove = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
for _, name in ipairs({ 'models', 'index', 'deadlines', 'down', 'out', 'served' }) do
  redis.call('ZCARD', keys[name])
end
for _, name in ipairs({ 'living', 'tally', 'guard', 'flights' }) do redis.call('HLEN', keys[name]) end
keeping.new(keys)
local record = load_record(keys.instance)
if not record then return 0 end
if inc ~= '' and inc ~= record.inc then return standing(inc, record) == 'newer' and 0 or -1 end
if remove == '1' then
  emit('removed', 'deregister', identity)
  commit()
  remove_record(keys, identity, address, model, record)
  return rev
end
-- What an incarnation says of itself is final: no late heartbeat of it brings it back.
local health = inc == '' and 'd' or 'g'
if record.health == health or (record.health ~= '1' and health == 'd') then return 0 end
local member = member_of(identity, record)
-- Failed calls were this life's; coming and going is the address's.
if string.sub(record.out, 1, 2) == 'e:' then record.out = '' end
relive(record, health,
  redis.call('ZSCORE', keys.deadlines, member) or record.deadline or now_text)
write_life(record)
emit('deregistered', 'deregister', row_of(identity, record, record.health))
commit()
count_living(keys.living, { [model] = -redis.call('ZREM', keys.deadlines, member) })
redis.call('ZADD', keys.down, now_text, identity)
redis.call('HSET', keys.instance, 'life', record.life)
redis.call('HDEL', keys.instance, 'calls', 'ejected')
save_out(keys.instance, identity, record.out, record.kept)
return rev
