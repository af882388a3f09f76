-- One draft: kind, key, exception, `before` (a cut-off; empty for now), expiry in s, longest life in ms.
local fault = open()
if fault then return fault end
local kind, key, except, at, expires = arg(1), arg(2), arg(3), 0, tonumber(arg(5))
if kind == SESSION then
  local id = call('GET', P .. 'k:' .. key)
  local r = id and alive(id)
  if r then expires = seconds(later(tonumber(r[END]), SLACK)) end
elseif kind == SUBJECT or kind == ISSUER then
  at = tonumber(arg(4)) or math.max(NOW, (stamp(key)) or 0)
  expires = seconds(later(at, tonumber(arg(6))))
end
local n, stored_at, stored_expires = append(kind, key, except, at, expires)
return { epoch, n, stored_at, stored_expires }
