-- The generic cell rate algorithm. KEYS: the caller's count. ARGV: between two in the long run, and how far ahead of
-- the long run one may be, both in microseconds. Answers {1, how many are left} or {0, microseconds to wait}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local used = tonumber(redis.call('GET', KEYS[1]) or now)
-- Neither what lies in the past counts, nor what can't be: a damaged count, or a clock that was set back.
if not (used and used >= now) then used = now end
if used > now + tolerance + interval then used = now + tolerance + interval end
local ahead = used - now
if ahead > tolerance then
  return { 0, math.ceil(ahead - tolerance) }
end
redis.call('SET', KEYS[1], string.format('%.0f', used + interval), 'PX', math.ceil((ahead + interval) / 1000))
return { 1, math.floor((tolerance - ahead) / interval) }
