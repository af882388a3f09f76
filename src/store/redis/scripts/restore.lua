-- Entries given back: kind, key, exception, instant, expiry of each.
local fault = open()
if fault then return fault end
for i = 1, #ARGV - 5, 5 do
  append(arg(i), arg(i + 1), arg(i + 2), tonumber(arg(i + 3)), tonumber(arg(i + 4)))
end
return { epoch, seq }
