-- Closes a reservation and charges what its answer took: the rule of `book.rs`. Says 1 if there was one, or it was owed.
-- KEYS: the caller's book; the mark of an answer that is paid for.
-- ARGV: now in ms (0: this server's clock), name, tokens, keep_ms, the day on which it was reserved elsewhere (-1: it was not).
local DAY, HOLD = 86400000, 3600000
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local name, keep, day = 'r' .. ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local reserved = redis.call('HGET', KEYS[1], name)
if reserved then
  local of, expires = reserved:match('^(%d+) %d+ (%d+) %d+$')
  redis.call('HDEL', KEYS[1], name)
  if tonumber(expires) > now then day = tonumber(of) else reserved = false end
end
if not reserved and (day < 0 or redis.call('EXISTS', KEYS[2]) == 1) then return 0 end
if day == math.floor(now / DAY) and tonumber(ARGV[3]) > 0 then
  redis.call('HINCRBY', KEYS[1], 'u' .. string.format('%d', day), ARGV[3])
  redis.call('PEXPIRE', KEYS[1], DAY + HOLD)
end
if keep > 0 then redis.call('SET', KEYS[2], '', 'PX', keep) end
return 1
