#!lua flags=allow-oom
-- The checker's beat: takes or renews the lease and tells its holder what there is to do.
--
-- KEYS  1 meta  2 events  3 lease  4 deadlines  5 down  6 guard
-- ARGV  1 header  2 actor  3 holder  4 lease µs  5 offset among the overdue  6 page size
--       7 forget after µs, or -1 for never  8 how many leases the caller holds
--       9 how many to list of those to forget
-- Reply {token, epoch, holder, lease left µs, µs to the next deadline or -1, overdue, living,
--        rebase: 1 | 0, [overdue member, …], [identity to forget, …], [scope in the guard, …],
--        an override has ended: 1 | 0, how many leases the one holds who waits for this one or -1}
--       token 0: somebody else holds the lease (the lists are empty)
-- @include open
local LEASE, DEADLINES, DOWN, GUARD = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local holder, ttl, offset, page = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('ZCARD', DOWN)
redis.call('HLEN', GUARD)
local living = redis.call('ZCARD', DEADLINES)

local lease = redis.call('HMGET', LEASE, 'holder', 'token', 'until', 'epoch')
local ends = tonumber(lease[3] or '0')
-- An end further away than a whole term was written by a clock that has been put back; a term
-- of another epoch may be one that a failover has lost.
local valid = now < ends and ends - now <= tonumber(redis.call('HGET', LEASE, 'ttl') or ttl)
  and lease[4] == epoch
if valid and lease[1] ~= holder then
  -- Controllers share several partitions: the holder may pass this one on.
  if partitions ~= '1' then
    redis.call('HSET', LEASE, 'waiting', holder .. '|' .. ARGV[8] .. '|' .. now_text)
  end
  return { 0, epoch, lease[1], ends - now, -1, 0, living, 0, {}, {}, {}, 0, -1 }
end
local by, leads, at = string.match(redis.call('HGET', LEASE, 'waiting') or '', '^(.*)|(%d+)|(%d+)$')
local waiting = by and by ~= holder and math.abs(now - tonumber(at)) < 2 * ttl and tonumber(leads) or -1
local token = tonumber(lease[2] or '0')
if not valid or lease[1] ~= holder then
  token = token + 1
  emit('lease', string.format('term %d', token), holder)
  commit()
  redis.call('HSET', META, 'gap', own_gap, 'window', own_window)
end
redis.call('HSET', LEASE, 'holder', holder, 'token', string.format('%d', token), 'until',
  string.format('%d', now + ttl), 'ttl', string.format('%d', ttl), 'epoch', epoch)

-- After a while in which nobody swept, nobody may be flipped for one timeout either: workers
-- that speak through controllers could not beat.
if swept > 0 and now - swept > gap and not recovering() then recover('unswept', swept, false) end
redis.call('HSET', META, 'swept', now_text)

local horizon = recovering() and math.min(recovery_from, now) or now
local horizon_text = string.format('%d', horizon)
-- The overdue are the lowest ranks; by rank a page costs the same wherever it begins.
local overdue = redis.call('ZCOUNT', DEADLINES, '-inf', horizon_text)
local members = offset < overdue
  and redis.call('ZRANGE', DEADLINES, offset, math.min(offset + page, overdue) - 1) or {}
local wait = -1
if recovering() then
  wait = recovery_ends() - now
else
  local next_ = redis.call('ZRANGEBYSCORE', DEADLINES, '(' .. now_text, '+inf', 'WITHSCORES',
    'LIMIT', 0, 1)
  if next_[2] then wait = math.max(tonumber(next_[2]) - now, 0) end
end
local forget = {}
local after = tonumber(ARGV[7])
if after >= 0 and not recovering() then
  forget = redis.call('ZRANGEBYSCORE', DOWN, '-inf', string.format('%d', now - after), 'LIMIT',
    0, ARGV[9])
end
local marks = redis.call('HMGET', META, 'rebase', 'orders_end')
local ended = tonumber(marks[2] or '0') -- the first end of an override; 0: none ends
if ended > now then wait = wait < 0 and ended - now or math.min(wait, ended - now) end
return { token, epoch, holder, ttl, wait, overdue, living, marks[1] and 1 or 0, members, forget,
  redis.call('HKEYS', GUARD), ended > 0 and ended <= now and 1 or 0, waiting }
