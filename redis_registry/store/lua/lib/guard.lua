-- The brake on mass expiry (promise L5). A scope is one model, or "*" for the partition.
--
-- guard hash   scope -> held|since|budget window|spent   or   open|until
-- tally hash   scope -> window|flips in it|flips in the one before
-- Flips of the running and the previous window count, the latter by the part of it that a
-- sliding window would still cover.
local guard = { scopes = {} }

function guard.new(keys, share, least, width, budget_share, max_hold)
  guard.keys, guard.share, guard.least = keys, share, least
  guard.width, guard.budget_share, guard.max_hold = width, budget_share, max_hold
end

local function numbers(text)
  local found = {}
  for word in string.gmatch(text or '', '[^|]+') do found[#found + 1] = tonumber(word) or word end
  return found
end

local function load_tally(key, scope, width)
  local tally = numbers(redis.call('HGET', key, scope))
  local from, current, previous = tally[1] or now, tally[2] or 0, tally[3] or 0
  if now >= from + 2 * width or now < from then return now, 0, 0 end
  if now >= from + width then return from + width, 0, current end
  return from, current, previous
end

-- Judges one scope with `overdue` instances waiting to be flipped.
function guard.judge(scope, living, overdue)
  local s = { flips = 0, spent = 0 }
  s.from, s.current, s.previous = load_tally(guard.keys.tally, scope, guard.width)
  local recent = s.current + s.previous * (1 - (now - s.from) / guard.width)
  local entry = numbers(redis.call('HGET', guard.keys.guard, scope))
  local would = recent + overdue
  local few = would < guard.least or would <= guard.share * (living + recent)
  if entry[1] == 'held' then
    s.since, s.window, s.spent = entry[2], entry[3], entry[4]
    if now - s.since >= guard.max_hold then
      -- What goes now was held before: it must not count towards the next trip.
      s.state, s.window, s.why = 'open', now + guard.width, 'held long enough'
      s.from, s.current, s.previous = now, 0, 0
    elseif few then
      s.state, s.why = 'gone', 'heartbeats are back'
    else
      s.state = 'held'
    end
  elseif entry[1] == 'open' then
    s.window = entry[2]
    -- An end further away than a window was set by a clock that has been put back.
    s.state = now < s.window and s.window <= now + guard.width and 'open' or 'gone'
  elseif overdue > 0 and not few then
    s.state, s.since, s.window, s.why = 'held', now, now, 'too many at once'
  end
  if s.why then
    emit('guard', (s.state == 'held' and 'held: ' or 'released: ') .. s.why, scope)
    commit()
  end
  if s.state == 'held' then
    if now >= s.window + guard.width then s.window, s.spent = now, 0 end
    s.left = math.max(1, math.floor(guard.budget_share * (living + recent))) - s.spent
  end
  guard.scopes[scope] = s
end

function guard.allows(scope)
  local s = guard.scopes[scope]
  return not s or s.state ~= 'held' or s.left > s.flips
end

function guard.count(scope)
  local s = guard.scopes[scope]
  if s and s.state ~= 'open' then s.flips = s.flips + 1 end
end

-- Writes back what was judged and counted; the tally goes by itself when nothing happens.
function guard.save()
  for scope, s in pairs(guard.scopes) do
    if s.state == 'held' then
      redis.call('HSET', guard.keys.guard, scope, string.format('held|%d|%d|%d', s.since,
        s.window, s.spent + s.flips))
    elseif s.state == 'open' then
      redis.call('HSET', guard.keys.guard, scope, string.format('open|%d', s.window))
    elseif s.state == 'gone' then
      redis.call('HDEL', guard.keys.guard, scope)
    end
    if s.flips > 0 or s.why then
      redis.call('HSET', guard.keys.tally, scope,
        string.format('%d|%d|%d', s.from, s.current + s.flips, s.previous))
      redis.call('PEXPIRE', guard.keys.tally, math.ceil(3 * guard.width / 1000))
    end
  end
end
