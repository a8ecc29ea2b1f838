-- Further names under which instances take work, say adapters of their model.
--
-- serves   field of a record: name|name|…, escaped; only of records that have any
-- served   sorted set of name|identity, scores all 0, so that those of a name are a range

-- Has the names of one instance found, and the former ones no more: `old` and `new` are as the field.
local function save_serves(served, key, identity, old, new)
  if old == new then return end
  local wanted, gone, come = {}, {}, {}
  for name in string.gmatch(new, '[^|]+') do wanted[name] = true end
  for name in string.gmatch(old, '[^|]+') do
    if not wanted[name] then gone[#gone + 1] = name .. '|' .. identity end
  end
  for name in pairs(wanted) do
    come[#come + 1], come[#come + 2] = 0, name .. '|' .. identity
  end
  if #gone > 0 then redis.call('ZREM', served, unpack(gone)) end
  if #come > 0 then redis.call('ZADD', served, unpack(come)) end
  if new ~= '' then redis.call('HSET', key, 'serves', new) else redis.call('HDEL', key, 'serves') end
end
