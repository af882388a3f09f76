-- Puts a register in the place of the one that was seen (empty: of none): key, what was seen, register, expiry. Says whether it did.
local fault = open()
if fault then return fault end
local key, seen = arg(1), arg(2)
local found = call('HGET', P .. 'lease', key)
if seen == '' then
  local expires = tonumber(call('ZSCORE', P .. 'lapsing', key) or '0')
  if found and expires > NOW then return { epoch, seq, 0 } end
elseif found ~= seen then
  return { epoch, seq, 0 }
end
call('HSET', P .. 'lease', key, arg(3))
call('ZADD', P .. 'lapsing', arg(4), key)
return { epoch, seq, 1 }
