#!lua flags=allow-oom
-- After the server's clock was put back: brings deadlines that lie further away than their
-- timeout back to where they belong, a page at a time from the far end.
--
-- KEYS  1 meta  2 events  3 lease  4 deadlines
-- ARGV  1 header  2 actor  3 holder  4 token  5 epoch  6 rank from the far end  7 page size
-- Reply rank to go on from, or -1 when done
-- @include open
-- @include fence
local DEADLINES = KEYS[4]
local first, page = tonumber(ARGV[6]), tonumber(ARGV[7])
local found = redis.call('ZREVRANGE', DEADLINES, first, first + page - 1, 'WITHSCORES')
local moved = {}
for i = 1, #found, 2 do
  local timeout = tonumber(string.match(found[i], ':(%d+):[^:]*$') or '0') * 1000
  if tonumber(found[i + 1]) > now + timeout then
    moved[#moved + 1] = string.format('%d', math.max(recovery_at, now - timeout) + timeout)
    moved[#moved + 1] = found[i]
  end
end
if #moved > 0 then redis.call('ZADD', DEADLINES, 'XX', unpack(moved)) end
if #found < 2 * page then
  redis.call('HDEL', META, 'rebase')
  return -1
end
-- Moved ones have left the far end; the next page begins that much earlier.
return first + page - #moved / 2
