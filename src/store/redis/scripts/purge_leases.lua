-- Deletes leases that expired by an instant, by the earlier of two clocks, at most so many. No slack: a result is there for
-- latecomers, and not longer than it must.
local fault = open()
if fault then return fault end
local by = tonumber(arg(1))
if GIVEN == '' then by = math.min(by, TIME) end
local lapsed = call('ZRANGEBYSCORE', P .. 'lapsing', '-inf', int(by), 'LIMIT', 0, tonumber(arg(2)))
for _, key in ipairs(lapsed) do
  call('HDEL', P .. 'lease', key)
  call('ZREM', P .. 'lapsing', key)
end
return { epoch, seq, #lapsed }
