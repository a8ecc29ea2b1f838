-- One instance's record: the hash, its member among the deadlines, its row in replies and events.
--
-- hash     terms  flags|timeout ms:incarnation              what it was registered with; flags are
--                                                           enabled, check (1 or 0), readiness
--          life   health|since µs|deadline µs|revision      the deadline among the deadlines,
--                                                           while there is one, is newer
--          spec   msgpack, opaque to the scripts
--          why    since µs:order:escaped reason             of the readiness; only after a change.
--                                                           order numbers what one life says
--          load   JSON without "|", opaque to the scripts   what its last report said
--          out    cause:until µs:…                         kept out of selection; see lib/out.lua
--          flaps, calls, ejected                           what that is decided by; only of the troubled
-- member   identity:timeout ms:incarnation   so that a heartbeat that believes otherwise misses
-- row      identity|terms|state|life|newer deadline µs|why|load|out|spec
--          (the last heartbeat was a timeout before the deadline)
-- health   1: healthy, x: expired, d: deregistered, g: gone (its own incarnation said so); one
--          letter, so that a flip writes the hash in place
-- readiness  s: starting, r: ready, n: not ready, d: draining, w: wedged, f: failed to start
--
-- Few fields, not eleven: a flip or a read is mostly the passing of arguments.

-- Whether a text of the field "out" still keeps anybody out.
local function keeps(out)
  local cause, till = string.match(out or '', '^(%l):(%d+)')
  return cause == 'e' or (cause == 'f' and tonumber(till) > now)
end

local function load_record(key)
  local found = redis.call('HMGET', key, 'terms', 'life', 'spec', 'why', 'out', 'flaps')
  if not found[2] then return nil end
  local record = { terms = found[1] or '01r|0:', life = found[2], spec = found[3] or '',
    why = found[4] or '', out = keeps(found[5]) and found[5] or '', kept = found[5],
    flaps = found[6] or '' }
  record.enabled, record.check, record.readiness, record.timeout, record.inc =
    string.match(record.terms, '^(%d)(%d)(%l)|(%d+):([%w_-]*)$')
  record.health, record.since, record.deadline, record.rev =
    string.match(record.life, '^(%w*)|(%d*)|(%d*)|(%d*)$')
  record.timeout_us = (tonumber(record.timeout) or 0) * 1000
  return record
end

-- Byte by byte: Lua's own comparison goes by the server's locale.
local function is_greater(one, other)
  for i = 1, math.max(#one, #other) do
    local a, b = string.byte(one, i) or 0, string.byte(other, i) or 0
    if a ~= b then return a > b end
  end
  return false
end

-- How a call of this incarnation stands to the record: it may speak for it (`current`; one
-- without an incarnation always may), is `older` (or has said goodbye), or is `newer` than any
-- the registry has heard of.
local function standing(inc, record)
  if inc == '' or (inc == record.inc and record.health ~= 'g') then return 'current' end
  return is_greater(inc, record.inc or '') and 'newer' or 'older'
end

-- Order, reason and beginning of a readiness.
local function order_of(why) return tonumber(string.match(why, '^%d+:(%d+):') or '0') end
local function reason_of(why) return string.match(why, '^%d+:%d+:(.*)$') or '' end
local function said_at(record) return string.match(record.why, '^(%d+):') or record.since end

local function member_of(identity, record)
  return identity .. ':' .. string.sub(record.terms, 5)
end

-- A record in another life, as of the change that is about to be made.
local function relive(record, health, deadline)
  record.health, record.since, record.deadline, record.rev =
    health, now_text, deadline, string.format('%d', rev + 1)
end

local function write_life(record)
  record.life = record.health .. '|' .. record.since .. '|' .. record.deadline .. '|' .. record.rev
end

local function row_of(identity, record, state)
  return identity .. '|' .. record.terms .. '|' .. state .. '|' .. record.life .. '||'
    .. record.why .. '||' .. record.out .. '|' .. record.spec
end
