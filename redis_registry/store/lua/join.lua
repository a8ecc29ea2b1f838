#!lua flags=allow-oom
-- Joins the namespace: records the number of partitions if nobody has, and tells what is on record.
--
-- KEYS  1 meta  2 events
-- ARGV  1 header (partitions 0)  2 actor  3 partitions to record when none are
-- Reply partitions on record
-- @include open
if not meta[2] then redis.call('HSET', META, 'partitions', ARGV[3]) end
return tonumber(meta[2] or ARGV[3])
