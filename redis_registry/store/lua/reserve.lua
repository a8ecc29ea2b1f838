#!lua flags=allow-oom
-- Picks, of the candidates, the one with the least in flight for its weight, below its capacity
-- and still able to work, and counts the reservation in the same moment: so replicas agree. Of
-- equals the one that was picked least recently. The same reservation again has the same answer.
--
-- KEYS  1 meta  2 events  3 deadlines  4 guard  5 holders  6 flights  7 held  8… instance
-- ARGV  1 header  2 actor  3 holder  4 reservation
--       5… weight:capacity of each instance; no capacity is no limit; with ":f" behind it an operator
--       has forced it healthy, whatever its deadline and its flips say
-- Reply {1, identity}; or none now: {0, µs until a place can be expected or -1, in flight,
--       capacity (of the full), how many are full, how many have died}
-- @include open
-- @include flights
local holder, id = ARGV[3], ARGV[4]
local DEADLINES, GUARD, HELD = KEYS[3], KEYS[4], KEYS[7]
local keys = { holders = KEYS[5], flights = KEYS[6] }
redis.call('HLEN', keys.flights)
redis.call('ZCARD', DEADLINES)
local given = redis.call('HGET', HELD, id)
-- Whoever reserves lives: its own lease goes on, also when nobody has renewed it in time.
if redis.call('ZSCORE', keys.holders, holder) then extend_lease(keys.holders, holder) end
if given then return { 1, string.match(given, '^(.*)|%d+$') } end
reclaim(keys, 200)

local identities, skip = {}, #BASE + 3 -- after "i:"
for i = 8, #KEYS do identities[i - 7] = string.sub(KEYS[i], skip) end
local entries = redis.call('HMGET', keys.flights, unpack(identities))
local free, loads, turns, counts, means = {}, {}, {}, {}, {}
local in_flight, capacity, full, rate = 0, 0, 0, 0
for i = 1, #identities do
  local count, picked, mean = flight_of(entries[i])
  local weight, most = string.match(ARGV[4 + i], '^([^:]*):(%d*)')
  counts[i], turns[i], means[i], loads[i] = count, picked, mean, count / tonumber(weight)
  most = tonumber(most)
  free[i] = not most or count < most
  if not free[i] then
    full, in_flight, capacity = full + 1, in_flight + count, capacity + most
    if mean > 0 then rate = rate + count / mean end
  end
end

-- What the candidate was when it was looked up may be over: its record and deadline decide.
local function is_held(scope)
  return string.sub(redis.call('HGET', GUARD, scope) or '', 1, 4) == 'held'
end

local function can_work(i)
  local record = redis.call('HMGET', KEYS[7 + i], 'terms', 'life')
  if not record[1] or not record[2] then return false end
  local forced = string.sub(ARGV[4 + i], -2) == ':f'
  if not forced and string.sub(record[2], 1, 2) ~= '1|' then return false end
  local check, readiness, timeout = string.match(record[1], '^%d(%d)(%l)|(%d+)')
  if readiness ~= 'r' then return false end
  if check ~= '1' or forced then return true end
  local deadline = tonumber(redis.call('ZSCORE', DEADLINES,
    identities[i] .. ':' .. string.sub(record[1], 5)) or '0')
  timeout = tonumber(timeout) * 1000
  if ahead(deadline, timeout) then return true end
  return deadline > 0 and (effective(deadline, timeout) > now
    or is_held('*') or is_held(string.match(identities[i], '^[^:]*')))
end

local dead = 0
while true do
  local best
  for i = 1, #identities do
    if free[i] and (not best or loads[i] < loads[best]
      or (loads[i] == loads[best] and turns[i] < turns[best])) then best = i end
  end
  if not best then break end
  if can_work(best) then
    local identity = identities[best]
    redis.call('HSET', keys.flights, identity, flight_text(counts[best] + 1, now, means[best]))
    redis.call('HSET', HELD, id, identity .. '|' .. now_text)
    extend_lease(keys.holders, holder)
    return { 1, identity }
  end
  free[best] = false
  dead = dead + 1
end

-- Places become free as they did so far, at the latest when the next lease ends.
local wait = -1
if in_flight > 0 then
  local first = redis.call('ZRANGE', keys.holders, 0, 0, 'WITHSCORES')
  wait = first[2] and math.max(tonumber(first[2]) - now, 0) or -1
  if rate > 0 then wait = wait < 0 and 1 / rate or math.min(wait, 1 / rate) end
end
return { 0, math.floor(wait), in_flight, capacity, full, dead }
