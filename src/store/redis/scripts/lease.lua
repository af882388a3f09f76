-- A lease's register, unless it has expired, and the instant to judge it by: key.
local fault = open()
if fault then return fault end
local found = call('HGET', P .. 'lease', arg(1))
local expires = tonumber(call('ZSCORE', P .. 'lapsing', arg(1)) or '0')
if found and expires > NOW then return { epoch, seq, NOW, found } end
return { epoch, seq, NOW }
