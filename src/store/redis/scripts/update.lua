-- Replaces a live session's attributes: id, attributes, the longest life of a token that says the older ones.
local fault = open()
if fault then return fault end
local id = arg(1)
local r = alive(id)
if not r or NOW >= ends_at(r) then return { epoch, seq, false } end
local version = later(tonumber(r[VERSION]), 1)
change(id, 'attributes', arg(2), 'version', int(version))
local n, at, expires = append(CLAIMS, r[SESSION_KEY], '', version, seconds(later(NOW, tonumber(arg(3)))))
return { epoch, n, record(id), at, expires }
