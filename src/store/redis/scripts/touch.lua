-- Notes activity: id, and how long ago the last note must be.
local fault = open()
if fault then return fault end
local id = arg(1)
local r = alive(id)
if r and NOW < ends_at(r) and tonumber(r[ACTIVE]) < NOW and tonumber(r[ACTIVE]) <= NOW - tonumber(arg(2)) then
  r[ACTIVE] = int(NOW)
  change(id, 'active', r[ACTIVE])
  call('ZADD', ENDS, int(ends_at(r)), id)
end
return { epoch, seq }
