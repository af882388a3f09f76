-- A subject's live sessions, newest first: subject key, creation and id to go on after (empty for none), how many.
local fault = open()
if fault then return fault end
local from, after, limit = arg(2) == '' and '+inf' or arg(2), arg(3), tonumber(arg(4))
local found, offset = {}, 0
-- By bytes: Lua's own comparison goes by the server's locale.
local function precedes(a, b)
  for i = 1, 16 do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return false
end
while #found < limit do
  local ids = call('ZREVRANGEBYSCORE', P .. 'u:' .. arg(1), from, '-inf', 'LIMIT', offset, 100)
  for _, id in ipairs(ids) do
    local r = alive(id)
    local passed = r and after ~= '' and r[CREATED] == from and not precedes(id, after)
    if r and not passed and ends_at(r) > NOW and #found < limit then found[#found + 1] = { id, r } end
  end
  if #ids < 100 then break end
  offset = offset + 100
end
return { epoch, seq, found }
