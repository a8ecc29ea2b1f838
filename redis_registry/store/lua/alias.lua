#!lua
-- Points an alias to a model: one write, so every reader sees the one or the other. Refused when
-- memory is full (no allow-oom), before anything was written.
--
-- KEYS  1 meta  2 events  3 aliases
-- ARGV  1 header  2 actor  3 alias  4 model  5 author  6 most of a partition
-- Reply record: at µs:model:author;  "": too many
-- @include open
local ALIASES, alias, model = KEYS[3], ARGV[3], ARGV[4]
local old = redis.call('HGET', ALIASES, alias)
if old and string.match(old, ':([^:]*):[^:]*$') == model then return old end
if not old and redis.call('HLEN', ALIASES) >= tonumber(ARGV[6]) then return '' end
local record = now_text .. ':' .. model .. ':' .. ARGV[5]
emit('alias_set', 'operator', alias .. ' ' .. record)
commit()
redis.call('HSET', META, 'orders', string.format('%d', rev))
redis.call('HSET', ALIASES, alias, record)
return record
