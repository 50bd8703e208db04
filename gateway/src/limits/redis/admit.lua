-- Judges a request, and writes it down if it may be: the rule of `book.rs`, in one step for all gateways.
-- KEYS: the caller's book; the mark of an answer that is paid for.
-- ARGV: now in ms (0: this server's clock), requests, tokens, streams, name, prompt, output, least, hold_ms, check_ms.
-- A book is a hash: w<second> = requests, u<day> = tokens charged, r<name> = "<day> <tokens> <expires> <checked>" reserved.
local DAY, WINDOW, SOON = 86400000, 60, 1000
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local max_requests, max_tokens, max_streams = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local id, prompt, output, least = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local hold, check = tonumber(ARGV[9]), tonumber(ARGV[10])
local second, day = math.floor(now / 1000), math.floor(now / DAY)

local function leaves(at)
  return math.max((at + WINDOW + 1) * 1000 - now, 0)
end

local requests, used, reserved, streams, mine = 0, 0, 0, 0, false
local window, gone, stale = {}, {}, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  local kind, rest = name:sub(1, 1), name:sub(2)
  if kind == 'w' then
    local at = tonumber(rest)
    if leaves(at) == 0 then
      gone[#gone + 1] = name
    else
      requests = requests + tonumber(value)
      window[#window + 1] = { at, tonumber(value) }
    end
  elseif kind == 'u' then
    if tonumber(rest) == day then used = tonumber(value) else gone[#gone + 1] = name end
  else
    local of, tokens, expires, checked = value:match('^(%d+) (%d+) (%d+) (%d+)$')
    if tonumber(expires) <= now then
      gone[#gone + 1] = name
    else
      streams = streams + 1
      if tonumber(of) == day then reserved = reserved + tonumber(tokens) end
      if rest == id then mine = true end
      if tonumber(checked) + check <= now then
        stale[#stale + 1] = rest
        redis.call('HSET', KEYS[1], name, of .. ' ' .. tokens .. ' ' .. expires .. ' ' .. string.format('%d', now))
      end
    end
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
table.sort(window, function(a, b) return a[1] < b[1] end)

-- 0: reserved; 1: asked for before; 2, 3, 4: over the limit of requests, streams, tokens.
local outcome, retry = 0, 0
if max_requests > 0 and requests >= max_requests then
  outcome, retry = 2, SOON
  local left = requests
  for _, bucket in ipairs(window) do
    left = left - bucket[2]
    if left < max_requests then
      retry = leaves(bucket[1])
      break
    end
  end
elseif mine or redis.call('EXISTS', KEYS[2]) == 1 then
  outcome = 1
elseif max_streams > 0 and streams >= max_streams then
  outcome, retry = 3, SOON
elseif max_tokens > 0 then
  least = prompt + least
  local free = math.max(max_tokens - used, 0)
  local left = math.max(free - reserved, 0)
  if least > left then
    outcome, retry = 4, least <= free and SOON or DAY - now % DAY
  else
    output = math.min(output, left - prompt)
  end
end

if outcome <= 1 then
  requests = requests + 1
  redis.call('HINCRBY', KEYS[1], 'w' .. string.format('%d', second), 1)
  window[#window + 1] = { second, 1 }
end
if outcome == 0 then
  reserved = reserved + prompt + output
  redis.call('HSET', KEYS[1], 'r' .. id, string.format('%d %d %d %d', day, prompt + output, now + hold, now))
end
if outcome <= 1 or #stale > 0 then redis.call('PEXPIRE', KEYS[1], DAY + hold) end

local newest = window[#window]
return {
  outcome, output, retry,
  math.max(max_requests - requests, 0), newest and leaves(newest[1]) or 0,
  math.max(max_tokens - used - reserved, 0), DAY - now % DAY,
  stale,
}
