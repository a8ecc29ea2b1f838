#!lua flags=allow-oom
-- Grants the one probe of an instance whose time out is over: its outcome says whether it comes back.
--
-- KEYS  1 meta  2 events  3 out  4 instance
-- ARGV  1 header  2 actor  3 identity  4 inc or ""  5 claim: a repeated one is granted again
--       6 how long the probe may take, µs
-- Reply 1: granted; 0: not now (nothing to probe, too early, or somebody else has it)
-- @include open
-- @include record
-- @include out
local INSTANCE, identity, inc = KEYS[4], ARGV[3], ARGV[4]
keeping.new({ out = KEYS[3] })
local record = load_record(INSTANCE)
if not record or not record.check or standing(inc, record) ~= 'current' then return 0 end
local till, times, claim = string.match(record.out, '^e:(%d+):(%d+):(.*)$')
local mine = string.match(ACTOR, '[^:]*$') .. '-' .. ARGV[5]
if claim == mine and tonumber(till) > now then return 1 end
if not till or tonumber(till) > now or record.health ~= '1' then return 0 end
record.out = string.format('e:%d:%s:%s', now + tonumber(ARGV[6]), times, mine)
record.rev = string.format('%d', rev + 1)
write_life(record)
emit('probing', 'claimed', row_of(identity, record, record.health))
commit()
redis.call('HSET', INSTANCE, 'life', record.life)
keep_out(INSTANCE, identity, record.out)
return 1
