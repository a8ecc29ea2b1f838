#!lua flags=allow-oom
-- What a view asks between events: who is overdue and not flipped yet (L3), and where the
-- partition stands. Those under recovery or the guard's protection are not listed.
--
-- KEYS  1 meta  2 events  3 deadlines  4 guard
-- ARGV  1 header  2 actor  3 offset among the overdue  4 page size
-- Reply {now µs, epoch, revision, µs to the next deadline or -1, end of the recovery µs or 0,
--        more: 1 | 0, [scope the guard holds, …], [overdue member, …]}
-- @include open
local DEADLINES, GUARD = KEYS[3], KEYS[4]
local offset, page = tonumber(ARGV[3]), tonumber(ARGV[4])
local held, scopes = {}, {}
local entries = redis.call('HGETALL', GUARD)
for i = 1, #entries, 2 do
  if string.sub(entries[i + 1], 1, 4) == 'held' then
    held[entries[i]] = true
    scopes[#scopes + 1] = entries[i]
  end
end

local horizon = recovering() and math.min(recovery_from, now) or now
local late = redis.call('ZCOUNT', DEADLINES, '-inf', string.format('%d', horizon))
-- Until a checker has brought them back, those of a clock that has been put back lie far ahead.
local far = redis.call('HGET', META, 'rebase')
  and redis.call('ZCOUNT', DEADLINES, string.format('(%d', now + window + gap), '+inf') or 0
local members = {}

local function list(first, behind)
  if first >= behind then return end
  local found = redis.call('ZRANGE', DEADLINES, first, behind - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local model, timeout = string.match(found[i], '^([^:]*):.*:(%d+):[^:]*$')
    local deadline, timeout_us = tonumber(found[i + 1]), (tonumber(timeout) or 0) * 1000
    if not held[model] and not ahead(deadline, timeout_us)
      and effective(deadline, timeout_us) <= now then
      members[#members + 1] = found[i]
    end
  end
end

if not held['*'] then
  list(offset, math.min(offset + page, late))
  local begin = redis.call('ZCARD', DEADLINES) - far
  list(begin + math.max(offset - late, 0), begin + math.min(offset + page - late, far))
end
local next_ = redis.call('ZRANGEBYSCORE', DEADLINES, '(' .. now_text, '+inf', 'WITHSCORES',
  'LIMIT', 0, 1)
return { now, epoch, rev, next_[2] and math.max(tonumber(next_[2]) - now, 0) or -1,
  recovering() and recovery_ends() or 0, offset + page < late + far and 1 or 0, scopes, members }
