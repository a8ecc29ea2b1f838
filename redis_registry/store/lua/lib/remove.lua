-- Takes every trace of an instance out of the state (the event tells of it).
-- Needs served.lua
local function remove_record(keys, identity, address, model, record)
  local names = redis.call('HGET', keys.instance, 'serves')
  if names then save_serves(keys.served, keys.instance, identity, names, '') end
  redis.call('DEL', keys.instance)
  if redis.call('ZREM', keys.deadlines, member_of(identity, record)) == 1 then
    count_living(keys.living, { [model] = -1 })
  end
  redis.call('ZREM', keys.down, identity)
  redis.call('ZREM', keys.out, identity)
  redis.call('ZREM', keys.index, address)
  -- What is still reserved of it stays counted; its last reservation takes the entry along.
  if string.sub(redis.call('HGET', keys.flights, identity) or '', 1, 2) == '0:' then
    redis.call('HDEL', keys.flights, identity)
  end
  if redis.call('EXISTS', keys.index) == 0 then
    redis.call('ZREM', keys.models, model)
    redis.call('HDEL', keys.tally, model)
    redis.call('HDEL', keys.guard, model)
  end
end
