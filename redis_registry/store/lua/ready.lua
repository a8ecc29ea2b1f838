#!lua flags=allow-oom
-- Says whether an instance is ready for work: starting, ready, not ready, draining, wedged, failed.
--
-- KEYS  1 meta  2 events  3 instance
-- ARGV  1 header  2 actor  3 identity  4 inc or ""  5 readiness  6 reason, escaped, or ""
--       7 kind of the event  8 order of what this life says, or 0: a smaller one came late
-- Reply revision of the change; 0: it is so already; -1: superseded; -2: unknown
-- @include open
-- @include record
local INSTANCE, identity, inc, readiness, reason = KEYS[3], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local record = load_record(INSTANCE)
if not record or not record.check or not record.health then return -2 end
local stands = standing(inc, record)
if stands ~= 'current' then return stands == 'newer' and -2 or -1 end
local order, known = tonumber(ARGV[8]), order_of(record.why)
if order > 0 and order < known then return 0 end
if record.readiness == readiness and reason_of(record.why) == reason then
  -- No change; but what was said before this is late from now on.
  if order > known then
    redis.call('HSET', INSTANCE, 'why', string.format('%s:%d:%s', said_at(record), order, reason))
  end
  return 0
end
record.terms = record.enabled .. record.check .. readiness .. string.sub(record.terms, 4)
record.why = string.format('%s:%d:%s', now_text, math.max(order, known), reason)
record.rev = string.format('%d', rev + 1)
write_life(record)
emit(ARGV[7], 'readiness', row_of(identity, record, record.health))
commit()
redis.call('HSET', INSTANCE, 'terms', record.terms, 'life', record.life, 'why', record.why)
return rev
