-- KEYS: the pauses, a probe. Answers each pause that holds with what is left of it, in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[2], '1', 'PX', 60000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1000)
local answer = {}
for i = 1, #found, 2 do
  -- A longer name is not ours.
  if #found[i] <= 256 then
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = math.floor(math.min(found[i + 1] - now, 600000))
  end
end
return answer
