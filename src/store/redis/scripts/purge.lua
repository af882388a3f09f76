-- Deletes what was over by an instant, by the earlier of two clocks, at most so many of all kinds together.
local fault = open()
if fault then return fault end
local by, limit = tonumber(arg(1)), tonumber(arg(2))
if GIVEN == '' then by = math.min(by, TIME) end
local over = math.max(by - SLACK, 0)
local gone = 0
local function oldest(set, at)
  return call('ZRANGEBYSCORE', set, '-inf', int(at), 'LIMIT', 0, limit - gone)
end
for _, id in ipairs(oldest(ENDS, over)) do
  drop(id)
  gone = gone + 1
end
for _, field in ipairs(oldest(EXPIRY, math.min(math.floor(over / 1000), NEVER - 1))) do
  call('XDEL', LOG, (call('HGET', ENTRY, field) or '0'):match('^%d+') .. '-0')
  call('HDEL', ENTRY, field)
  call('ZREM', EXPIRY, field)
  live, gone = live - 1, gone + 1
end
for _, key in ipairs(oldest(FADING, by)) do
  call('HDEL', STAMP, key)
  call('ZREM', FADING, key)
  stamps, gone = stamps - 1, gone + 1
end
-- A server without memory takes a write once something was deleted, and only then.
if gone > 0 then call('HSET', HEAD, 'live', live, 'stamps', stamps) end
return { epoch, seq, gone }
