#!lua flags=allow-oom
-- Removes overrides that have ended. Readers don't wait for it: they judge the end themselves.
--
-- KEYS  1 meta  2 events  3 lease  4 overrides
-- ARGV  1 header  2 actor  3 holder  4 token  5 epoch  6 most a call
-- Reply number removed
-- @include open
-- @include fence
local OVERRIDES, most = KEYS[4], tonumber(ARGV[6])
local all = redis.call('HGETALL', OVERRIDES)
local first, ended = nil, {}
for i = 1, #all, 2 do
  local ends = tonumber(string.match(all[i + 1], '^%d+:(%d+):') or '0')
  if ends > 0 and ends <= now and #ended < most then
    ended[#ended + 1] = all[i]
    emit('override_expired', 'expired', all[i] .. ' ' .. all[i + 1])
  elseif ends > 0 then
    first = math.min(first or ends, ends)
  end
end
if #ended > 0 then
  commit()
  redis.call('HSET', META, 'orders', string.format('%d', rev))
  redis.call('HDEL', OVERRIDES, unpack(ended))
end
if first then
  redis.call('HSET', META, 'orders_end', string.format('%d', first))
else
  redis.call('HDEL', META, 'orders_end')
end
return #ended
