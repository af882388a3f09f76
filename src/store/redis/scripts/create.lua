-- A login: id, session, subject and issuer key, issuer, subject, policy, client, device, attributes, idle, absolute, generation, the limit
-- (empty for none), whether it evicts, whether it is recorded.
local fault = open()
if fault then return fault end
local id, session_key, subject_key, issuer_key = arg(1), arg(2), arg(3), arg(4)
local created = NOW
for _, key in ipairs({ subject_key, issuer_key }) do
  local _, cutoff = stamp(key)
  if cutoff then created = math.max(created, later(cutoff, 1)) end
end
raise(subject_key, created, 0)
raise(issuer_key, created, 0)
local ended = {}
if arg(16) == '1' then
  local of_subject, limit = P .. 'u:' .. subject_key, tonumber(arg(14))
  if limit then
    local room = {}
    for _, other in ipairs(call('ZRANGE', of_subject, 0, -1)) do
      local r = alive(other)
      if r and r[POLICY] == arg(7) and ends_at(r) > NOW then room[#room + 1] = { other, r } end
      if not r and not record(other) then call('ZREM', of_subject, other) end
    end
    local too_many = #room + 1 - limit
    if too_many > 0 and arg(15) ~= '1' then return { epoch, seq } end
    for i = 1, math.min(too_many, #room) do
      local _, _, expires = deny(room[i][2])
      ended[#ended + 1] = { room[i][1], room[i][2][SESSION_KEY], expires }
    end
  end
  local idle, last = tonumber(arg(11)), later(created, tonumber(arg(12)))
  call('HSET', P .. 's:' .. id, 'session_key', session_key, 'subject_key', subject_key, 'issuer_key', issuer_key, 'issuer', arg(5),
    'subject', arg(6), 'policy', arg(7), 'client', arg(8), 'device', arg(9), 'attributes', arg(10), 'version', 1,
    'created', int(created), 'active', int(created), 'idle', int(idle), 'end', int(last), 'generation', arg(13),
    'began', int(created), 'v', 1)
  call('SET', P .. 'k:' .. session_key, id)
  call('ZADD', of_subject, int(created), id)
  call('ZADD', ENDS, int(math.min(later(created, idle), last)), id)
end
return { epoch, seq, int(created), ended }
