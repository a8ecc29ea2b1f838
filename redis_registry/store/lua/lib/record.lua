-- One instance's record: the hash, its member among the deadlines, its row in replies and events.
--
-- hash     enabled, check, timeout (ms), inc, health (1 | expired | deregistered), rev,
--          since (µs), beat (µs; only meaningful while not among the deadlines), spec (msgpack)
-- member   identity:timeout:inc   so that a heartbeat that believes something else misses
-- row      identity|enabled|check|timeout|inc|state|rev|since|beat|spec
local FIELDS = { 'enabled', 'check', 'timeout', 'inc', 'health', 'rev', 'since', 'beat', 'spec' }
local ENABLED, CHECK, TIMEOUT, INC, HEALTH, REV, SINCE, BEAT, SPEC = 1, 2, 3, 4, 5, 6, 7, 8, 9

local function load_record(key)
  local record = redis.call('HMGET', key, unpack(FIELDS))
  if not record[HEALTH] then return nil end
  return record
end

local function member_of(identity, record)
  return identity .. ':' .. (record[TIMEOUT] or '0') .. ':' .. (record[INC] or '')
end

local function timeout_us(record) return (tonumber(record[TIMEOUT]) or 0) * 1000 end

local function row_of(identity, record, state, beat)
  return table.concat({ identity, record[ENABLED] or '', record[CHECK] or '',
    record[TIMEOUT] or '', record[INC] or '', state, record[REV] or '', record[SINCE] or '',
    beat or '', record[SPEC] or '' }, '|')
end
