-- Takes every trace of an instance out of the state (the event tells of it).
local function remove_record(keys, identity, address, model, record)
  redis.call('DEL', keys.instance)
  if redis.call('ZREM', keys.deadlines, member_of(identity, record)) == 1 then
    count_living(keys.living, { [model] = -1 })
  end
  redis.call('ZREM', keys.down, identity)
  redis.call('ZREM', keys.out, identity)
  redis.call('ZREM', keys.index, address)
  if redis.call('EXISTS', keys.index) == 0 then
    redis.call('ZREM', keys.models, model)
    redis.call('HDEL', keys.tally, model)
    redis.call('HDEL', keys.guard, model)
  end
end
