-- How many instances of each model are among the deadlines; the guard's denominator.
-- `changes` says by how much for each model: one call reads them all, for models die together.
local function count_living(key, changes)
  local models, kept, dropped = {}, {}, {}
  for model, by in pairs(changes) do
    if by ~= 0 then models[#models + 1] = model end
  end
  if #models == 0 then return end
  local counts = redis.call('HMGET', key, unpack(models))
  for i, model in ipairs(models) do
    local count = tonumber(counts[i] or '0') + changes[model]
    if count > 0 then
      kept[#kept + 1], kept[#kept + 2] = model, string.format('%d', count)
    else
      dropped[#dropped + 1] = model
    end
  end
  if #kept > 0 then redis.call('HSET', key, unpack(kept)) end
  if #dropped > 0 then redis.call('HDEL', key, unpack(dropped)) end
end
