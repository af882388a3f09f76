-- Writes what was decided about a record as it was read: id, its `v`, the next generation (empty: used twice, so the session ends), when.
local fault = open()
if fault then return fault end
local id = arg(1)
local r = alive(id)
if not r or r[#FIELDS] ~= arg(2) then return { epoch, seq, 0 } end
if arg(3) == '' then
  local _, _, expires = deny(r)
  -- Also where the way from its key to its id was evicted.
  drop(id)
  return { epoch, seq, 1, expires }
end
-- A refresh is activity: the idle time starts again.
r[ACTIVE] = int(math.max(tonumber(r[ACTIVE]), tonumber(arg(4))))
change(id, 'generation', arg(3), 'began', arg(4), 'active', r[ACTIVE])
call('ZADD', ENDS, int(ends_at(r)), id)
return { epoch, seq, 1 }
