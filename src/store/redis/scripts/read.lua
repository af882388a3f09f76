-- A page: the cursor's epoch (empty for none) and number, how many, and the number and content of an entry that the reader was given before.
local fault = open()
if fault then return fault end
local from, restarted = 0, 0
if arg(1) ~= '' then
  local cursor = tonumber(arg(2))
  if arg(1) ~= epoch or cursor > seq then
    restarted = 1
  else
    from = cursor
    local seen = arg(4) ~= '' and call('XRANGE', LOG, arg(4) .. '-0', arg(4) .. '-0')[1]
    local f = seen and seen[2]
    if f and f[2] .. f[4] .. f[6] .. ':' .. f[8] .. ':' .. f[10] ~= arg(5) then
      -- An older copy was put in place and written on: what lies before the cursor is not what was read there.
      from, restarted = 0, 1
      begin(TIME, call('INFO', 'replication'):match('master_replid:(%x+)') or '')
    end
  end
end
local entries = call('XRANGE', LOG, int(from + 1) .. '-0', '+', 'COUNT', arg(3))
return { epoch, seq, int(born), int(TIME), restarted, int(from), entries }
