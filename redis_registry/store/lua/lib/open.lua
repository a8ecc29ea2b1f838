-- Opens the partition: reads the clock once, checks that we speak its format, and notices when
-- the registry itself was away (promise L4). Every script begins with it.
--
-- Needs   KEYS[1] meta, KEYS[2] events
--         ARGV[1] header: format|partitions|gap µs|window µs|events kept;  ARGV[2] actor
-- Gives   now, now_text, epoch, rev, recovering, recovery_ends, effective(), emit(), commit(),
--         recover(), ahead(), own_gap and own_window of the caller
local META, EVENTS, ACTOR = KEYS[1], KEYS[2], ARGV[2]
local FORMAT, partitions, own_gap, own_window, events_kept =
  string.match(ARGV[1], '^(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$')

-- Not frozen inside a script on Redis 7.0, so it is read exactly once.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_text = string.format('%d', now) -- tostring() would lose digits

local meta = redis.call('HMGET', META, 'format', 'partitions', 'run', 'epoch', 'rev', 'pulse',
  'swept', 'recovery_from', 'recovery_first', 'recovery_at', 'former_from', 'former_at',
  'gap', 'window', 'promoted')
redis.call('XLEN', EVENTS) -- fails here, before any write, if the key is of another type
if meta[1] and meta[1] ~= FORMAT then
  return redis.error_reply('RRFORMAT ' .. meta[1])
end
if meta[2] and partitions ~= '0' and meta[2] ~= partitions then
  return redis.error_reply('RRPARTITIONS ' .. meta[2])
end

local epoch, rev = meta[4], tonumber(meta[5] or '0')
local pulse, swept = tonumber(meta[6] or '0'), tonumber(meta[7] or '0')
local recovery_from, recovery_first, recovery_at =
  tonumber(meta[8] or '0'), tonumber(meta[9] or '0'), tonumber(meta[10] or '0')
local former_from, former_at = tonumber(meta[11] or '0'), tonumber(meta[12] or '0')
-- Those of the newest term: a caller with a shorter timeout would take the pace of others for silence.
local gap, window = tonumber(meta[13] or own_gap), tonumber(meta[14] or own_window)

-- The deadline that counts: after an absence of the registry (recovery_at) everybody whose
-- deadline passed meanwhile gets one full timeout; what the former recovery has given holds too,
-- for an own timeout may be longer than the window. A deadline further away than a timeout was
-- set by a clock that has since been put back.
local function effective(deadline, timeout)
  local granted = recovery_at + timeout
  if deadline > now + timeout then return granted end
  if deadline > recovery_from and deadline < granted then return granted end
  granted = former_at + timeout
  if deadline > former_from and deadline < granted then return granted end
  return deadline
end

-- Whether a deadline lies ahead. One further away than a timeout was set by a clock that has since been
-- put back; that it was, by less than a gap, may have gone unnoticed.
local function ahead(deadline, timeout) return deadline > now and deadline <= now + timeout + gap end

local function recovering() return recovery_at > 0 and now < recovery_at + window end
local function recovery_ends() return recovery_at + window end

-- One change, one event, written before the state it tells of. Its id is the revision (and 0), so
-- Redis itself refuses to go back and a gap is arithmetic. It is one field: the name says
-- epoch|kind|cause|actor|at µs, the value is the row, or a subject where there is no row.
-- Events in a row that have the name in common share it in memory.
local function event_head(kind, cause)
  return epoch .. '|' .. kind .. '|' .. cause .. '|' .. ACTOR .. '|' .. now_text
end

-- It is the first write of a script. A right that was missing may have ended an earlier call just
-- after it: then the revision is behind the stream, and is put right for the next attempt.
local function append(...)
  local done = redis.pcall('XADD', EVENTS, ...)
  if type(done) ~= 'table' or not done.err then return end
  local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
  local reached = last and string.match(last[1], '^(%d+)')
  if not reached or tonumber(reached) < rev then error(done) end
  redis.call('HSET', META, 'rev', reached)
  error(redis.error_reply('TRYAGAIN the revision was behind the stream'))
end

local function emit(kind, cause, row)
  rev = rev + 1
  append('MAXLEN', '~', events_kept, string.format('%d', rev), event_head(kind, cause), row)
end

local function commit() redis.call('HSET', META, 'rev', string.format('%d', rev)) end

-- Starts a recovery, or stretches the one under way. A hard cause (new server process, clock
-- put back) starts anew; a mere silence stretches by its own length, and never beyond one
-- extra window after the first, so that no chain of hand-overs can delay a real death longer.
local function recover(cause, from, hard)
  local former, former_since = recovery_at, recovery_from
  if hard then
    -- Who lived by the grace of one that was under way when we went away keeps it.
    if from >= recovery_at + window then recovery_from = from end
    recovery_from = math.min(recovery_from, now)
    recovery_first, recovery_at = now, now
  elseif recovering() then
    recovery_at = math.min(recovery_at + (now - from), recovery_first + window, now)
  else
    recovery_from, recovery_first, recovery_at = from, now, now
  end
  if recovery_from > former_since then former_from, former_at = former_since, former end
  former_at = math.min(former_at, now) -- else a clock was put back
  emit('recovery', cause, '*')
  commit()
  redis.call('HSET', META, 'recovery_from', string.format('%d', recovery_from),
    'recovery_first', string.format('%d', recovery_first),
    'recovery_at', string.format('%d', recovery_at), 'recovery_cause', cause,
    'former_from', string.format('%d', former_from), 'former_at', string.format('%d', former_at))
end

-- fakeredis has no INFO; everywhere else the run id tells a restart or failover from a pause. A server
-- may be replaced, take over what its replacement has, which is less, and be promoted again, with
-- nobody calling meanwhile: then its second replication id tells (none, or zeros: never promoted).
local info = redis.pcall('INFO', 'server', 'replication')
-- Without the right to it a restart would go unnoticed: better to say so at once.
if type(info) == 'table' and type(info.err) == 'string'
  and not string.find(info.err, 'nknown') then return info end
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown'
local promoted = type(info) == 'string' and string.match(info, 'master_replid2:(%x+)') or ''
if not string.find(promoted, '[^0]') then promoted = '' end
local again = promoted ~= '' and (meta[15] or '') ~= promoted
if not epoch or meta[3] ~= run or again then
  -- Revisions and tokens are unique within an epoch only: acknowledged writes may be lost.
  local born = not epoch
  epoch = string.format('%s-%d', string.sub(run, 1, 8), now)
  if born then -- meta is new or was lost; a stream that outlived it must not go back
    local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
    if last then rev = math.max(rev, tonumber(string.match(last[1], '^(%d+)'))) end
    emit('opened', 'new', '*')
    commit()
    -- Overrides may have outlived it too: let readers look.
    if last then redis.call('HSET', META, 'orders', string.format('%d', rev)) end
  else
    recover('restarted', pulse, true)
  end
  redis.call('HSET', META, 'format', FORMAT, 'run', run, 'promoted', promoted, 'epoch', epoch)
  if partitions ~= '0' then redis.call('HSET', META, 'partitions', partitions) end
  if pulse > now then redis.call('HSET', META, 'rebase', '1') end
elseif now < pulse - 100000 then
  recover('clock put back', now, true)
  redis.call('HSET', META, 'rebase', '1')
elseif now > pulse + gap then
  recover('silence', pulse, false)
end
if now > pulse + gap / 8 or now < pulse then redis.call('HSET', META, 'pulse', now_text) end
