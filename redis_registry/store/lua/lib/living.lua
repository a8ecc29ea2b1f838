-- How many instances of each model are among the deadlines; the guard's denominator.
local function count_living(key, model, by)
  if by ~= 0 and redis.call('HINCRBY', key, model, by) <= 0 then redis.call('HDEL', key, model) end
end
