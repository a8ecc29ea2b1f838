#!lua flags=allow-oom
-- Counts how calls to instances ended, and keeps those out to which too many fail. It reads other
-- instances of the model, named by its index, to keep the last one in (as read.lua does).
--
-- KEYS  1 meta  2 events  3 deadlines  4 living  5 out  6 reports  7… instance
-- ARGV  1 header  2 actor  3 base of the partition's keys  4 operation: a repeated one counts once
--       5 for how long operations are remembered, µs
--       6 rules: failures in a row|failed share|of at least so many calls|half life of a call µs|
--       share that may be out|first time out µs|longest time out µs
--       7… groups of: identity, inc or "", failures, successes, failures after the last success,
--       reason
-- Reply [verdict, until µs, …]
--       verdict: c counted, o out, s spared (the last one, or too many are out), r restored,
--       l late (an older life, or unhealthy), u unknown
-- @include open
-- @include record
-- @include out
local DEADLINES, LIVING, OUT, REPORTS = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
redis.call('ZCARD', REPORTS)
local rule = {}
for number in string.gmatch(ARGV[6], '[^|]+') do rule[#rule + 1] = tonumber(number) end
local in_a_row, failed_share, least_calls, half_life, share, first_us, longest_us = unpack(rule)
keeping.new({ out = OUT, living = LIVING, deadlines = DEADLINES }, ARGV[3], share)
local claimer = string.match(ACTOR, '[^:]*$')
-- By key: two lives of one instance may be told of at once. Most reports are of successes where
-- nothing is counted and nobody is out; that costs one look.
local records, quiet = {}, {}
for i = 7, #KEYS do
  local key = KEYS[i]
  local told = redis.call('HMGET', key, 'calls', 'out')
  if not told[1] and not told[2] and ARGV[9 + 6 * (i - 7)] == '0' then
    quiet[i] = true
  elseif not records[key] then
    records[key] = load_record(key)
  end
end

local keep_us = tonumber(ARGV[5])
local old = redis.call('ZCOUNT', REPORTS, '-inf', string.format('%d', now - keep_us))
if old > 0 then redis.call('ZREMRANGEBYRANK', REPORTS, 0, old - 1) end
local fresh = redis.call('ZADD', REPORTS, 'NX', now_text, ARGV[4]) == 1
redis.call('PEXPIRE', REPORTS, math.ceil(2 * keep_us / 1000))

-- Writes a change of the field "out", its event first.
local function change(key, identity, record, out, kind, cause)
  record.out, record.rev = out, string.format('%d', rev + 1)
  write_life(record)
  emit(kind, cause, row_of(identity, record, record.health))
  commit()
  save_out(key, identity, out, record.kept)
  record.kept = out
  redis.call('HSET', key, 'life', record.life)
end

-- Out it goes: each time in a row for twice as long. Who stayed in for the longest time out
-- begins anew.
local function eject(key, identity, record, times, cause)
  local till = now + math.min(first_us * 2 ^ math.min(times - 1, 30), longest_us)
  local out = until_at_least(string.format('e:%d:%d:', till, times),
    tonumber(string.match(record.out, '^f:(%d+)') or '0'))
  change(key, identity, record, out, 'ejected', cause)
  redis.call('HDEL', key, 'calls')
  return 'o', string.match(out, '^e:(%d+)')
end

-- Half open, its one probe decides: a failure counts only of him who has claimed it, for any other
-- may be of a call that began long ago; a success is one whoever says so.
local function probed(key, identity, record, failures, successes, reason)
  local till, times, claim = string.match(record.out, '^e:(%d+):(%d+):(.*)$')
  if failures > 0 and string.match(claim, '^[^-]+') == claimer then
    return eject(key, identity, record, tonumber(times) + 1, 'the probe failed' .. reason)
  end
  if successes > 0 and (claim ~= '' or tonumber(till) <= now) then
    change(key, identity, record, '', 'restored', 'a call succeeded')
    redis.call('HSET', key, 'ejected', times .. ':' .. now_text)
    return 'r', '0'
  end
  return 'o', till
end

-- In a row, of all replicas; or too large a share of the calls since the first failure, each of
-- which weighs half after the half life. Who never fails has no counts.
local function counted(key, identity, record, failures, successes, trailing, reason)
  local row, at, ok, failed =
    string.match(redis.call('HGET', key, 'calls') or '', '^(%d+):(%d+):([%d.]+):([%d.]+)$')
  if not row and failures == 0 then return 'c', '0' end
  row, at, ok, failed = tonumber(row or '0'), tonumber(at or now_text), tonumber(ok or '0'),
    tonumber(failed or '0')
  ok, failed = decayed(ok, at, half_life), decayed(failed, at, half_life)
  if fresh then
    row = successes > 0 and trailing or row + failures
    ok, failed = ok + successes, failed + failures
  end
  local why = row >= in_a_row and string.format('%d failures in a row', row)
    or ok + failed + 0.5 >= least_calls and failed >= failed_share * (ok + failed)
      and string.format('%.0f%% of %.0f calls failed', 100 * failed / (ok + failed), ok + failed)
  local verdict = 'c'
  if failures > 0 and why then
    local model = string.match(identity, '^[^:]*')
    if record.out ~= '' or may_keep_out(model, identity) then
      local times, ended =
        string.match(redis.call('HGET', key, 'ejected') or '', '^(%d+):(%d+)$')
      if not ended or now > tonumber(ended) + longest_us then times = 0 end
      return eject(key, identity, record, tonumber(times) + 1, why .. reason)
    end
    verdict = 's'
  end
  redis.call('HSET', key, 'calls', string.format('%d:%d:%.2f:%.2f', row, now, ok, failed))
  return verdict, '0'
end

local reply = {}
for i = 7, #ARGV, 6 do
  local key, identity, inc = KEYS[7 + (i - 7) / 6], ARGV[i], ARGV[i + 1]
  local failures, successes = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local trailing, reason = tonumber(ARGV[i + 4]), ARGV[i + 5]
  if reason ~= '' then reason = ': ' .. reason end
  local record = records[key]
  local verdict, till = 'u', '0'
  if quiet[7 + (i - 7) / 6] then
    verdict = 'c'
  elseif record and record.check and record.health then
    local stands = standing(inc, record)
    if stands == 'older' or (stands == 'current' and record.health ~= '1') then
      verdict = 'l'
    elseif stands == 'current' and string.sub(record.out, 1, 2) == 'e:' then
      verdict, till = probed(key, identity, record, failures, successes, reason)
    elseif stands == 'current' then
      verdict, till = counted(key, identity, record, failures, successes, trailing, reason)
    end
  end
  reply[#reply + 1], reply[#reply + 2] = verdict, till
end
return reply
