-- KEYS: the pauses. ARGV: what is to be left alone, for how many milliseconds. A longer pause stays.
local time = redis.call('TIME')
local untilThen = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local known = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if known < untilThen then
  redis.call('ZADD', KEYS[1], string.format('%.0f', untilThen), ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], 600000)
return 1
