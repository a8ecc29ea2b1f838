-- Reservations: what each holder holds, and how many of each instance are in flight.
--
-- holders    holder → end of its lease µs; its name begins with the length of that lease in ms
-- h:<holder> reservation → identity|reserved at µs
-- flights    identity → count:last picked µs:mean holding µs; the counts are what all holders
--            hold together, and an entry stays with 0 for as long as its instance is registered
--
-- A holder that died is cleared by whoever comes next, so its hash, and the instances that a
-- holder's hash names, can't be among the KEYS (see docs/explanation/storage.md).
local BASE = string.sub(META, 1, -5) -- without "meta"

local function lease_of(holder)
  return tonumber(string.match(holder, '^(%d+)%-') or '0') * 1000
end

local function extend_lease(holders, holder)
  redis.call('ZADD', holders, string.format('%d', now + lease_of(holder)), holder)
end

local function flight_of(entry)
  local count, picked, mean = string.match(entry or '', '^(%d+):(%d+):(%d+)$')
  return tonumber(count or '0'), tonumber(picked or '0'), tonumber(mean or '0')
end

local function flight_text(count, picked, mean)
  return string.format('%d:%d:%d', count, picked, mean)
end

-- Changes counts: `changes` maps identity → { by, and of what was given back: how long it was
-- held in all µs, how many they were }.
local function count_flights(key, changes)
  local identities, kept, dropped = {}, {}, {}
  for identity in pairs(changes) do identities[#identities + 1] = identity end
  if #identities == 0 then return end
  local entries = redis.call('HMGET', key, unpack(identities))
  for i, identity in ipairs(identities) do
    local count, picked, mean = flight_of(entries[i])
    local change = changes[identity]
    count = math.max(count + change[1], 0)
    if change[3] > 0 then
      local held = change[2] / change[3]
      mean = mean == 0 and held or mean + (held - mean) / 8
    end
    if count == 0 and redis.call('EXISTS', BASE .. 'i:' .. identity) == 0 then
      dropped[#dropped + 1] = identity
    else
      kept[#kept + 1], kept[#kept + 2] = identity, flight_text(count, picked, mean)
    end
  end
  if #kept > 0 then redis.call('HSET', key, unpack(kept)) end
  if #dropped > 0 then redis.call('HDEL', key, unpack(dropped)) end
end

-- Takes reservations away from a holder: `found` is id, identity|reserved at, …
local function give_back(keys, holder, held, found, timed)
  local ids, changes = {}, {}
  for i = 1, #found, 2 do
    if found[i + 1] then
      local identity, since = string.match(found[i + 1], '^(.*)|(%d+)$')
      ids[#ids + 1] = found[i]
      if identity then -- else it can't be read, and counts for nobody
        local change = changes[identity] or { 0, 0, 0 }
        change[1] = change[1] - 1
        if timed then
          change[2], change[3] = change[2] + math.max(now - tonumber(since), 1), change[3] + 1
        end
        changes[identity] = change
      end
    end
  end
  count_flights(keys.flights, changes)
  if #ids > 0 then redis.call('HDEL', held, unpack(ids)) end
  if redis.call('HLEN', held) == 0 then redis.call('ZREM', keys.holders, holder) end
  return #ids
end

-- Gives back what one dead holder held, at most `most` of it; how many those were.
local function reclaim(keys, most)
  -- An end further away than a whole lease was set by a clock that has since been put back.
  local last = redis.call('ZREVRANGE', keys.holders, 0, 0, 'WITHSCORES')
  if last[1] and tonumber(last[2]) > now + lease_of(last[1]) then
    extend_lease(keys.holders, last[1])
  end
  local first = redis.call('ZRANGE', keys.holders, 0, 0, 'WITHSCORES')
  if not first[1] or effective(tonumber(first[2]), lease_of(first[1])) > now then return 0 end
  local held = BASE .. 'h:' .. first[1]
  return give_back(keys, first[1], held, redis.call('HRANDFIELD', held, most, 'WITHVALUES'), false)
end
