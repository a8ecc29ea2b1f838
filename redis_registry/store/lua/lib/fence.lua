-- Every write of a sweep carries its term; Redis refuses an older one (promise W5).
-- Needs KEYS[3] lease, ARGV[3] holder, ARGV[4] token, ARGV[5] epoch
local LEASE = KEYS[3]
do
  local lease = redis.call('HMGET', LEASE, 'holder', 'token')
  if epoch ~= ARGV[5] or lease[1] ~= ARGV[3] or lease[2] ~= ARGV[4] then
    return redis.error_reply('RRFENCED ' .. (lease[1] or 'nobody') .. ' ' .. (lease[2] or '0'))
  end
end
