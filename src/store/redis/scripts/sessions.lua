-- Sessions and what entries do to them; follows common.lua.
local FIELDS = { 'session_key', 'subject_key', 'issuer_key', 'issuer', 'subject', 'policy', 'client', 'device', 'attributes', 'version',
  'created', 'active', 'idle', 'end', 'generation', 'began', 'v' }
local SESSION_KEY, SUBJECT_KEY, ISSUER_KEY, POLICY, VERSION, CREATED, ACTIVE, IDLE, END = 1, 2, 3, 6, 10, 11, 12, 13, 14

local function record(id)
  local r = call('HMGET', P .. 's:' .. id, unpack(FIELDS))
  if r[SESSION_KEY] then return r end
end

-- A session that has ended has no record, or one that waits to be purged: an issuer's cut-off touches no rows, and an index may have been
-- evicted under us. What can't be told to be alive is not.
local function alive(id)
  local r = record(id)
  if not r or call('HEXISTS', ENTRY, SESSION .. r[SESSION_KEY]) == 1 then return end
  if not call('ZSCORE', P .. 'u:' .. r[SUBJECT_KEY], id) then return end
  local cutoff = (call('HGET', ENTRY, ISSUER .. r[ISSUER_KEY]) or ''):match(':(%d+):')
  if cutoff and tonumber(r[CREATED]) <= tonumber(cutoff) then return end
  return r
end

local function ends_at(r)
  return math.min(later(tonumber(r[ACTIVE]), tonumber(r[IDLE])), tonumber(r[END]))
end

-- Changes a record, so that whoever has read it before must read again.
local function change(id, ...)
  call('HSET', P .. 's:' .. id, ...)
  call('HINCRBY', P .. 's:' .. id, 'v', 1)
end

local function drop(id)
  local r = record(id)
  if r then
    call('DEL', P .. 's:' .. id, P .. 'k:' .. r[SESSION_KEY])
    call('ZREM', P .. 'u:' .. r[SUBJECT_KEY], id)
  end
  call('ZREM', ENDS, id)
end

-- What an entry does besides being in the log: records it hits end, later logins are stamped after it.
local function take_effect(kind, key, except, at)
  if kind == SESSION then
    local id = call('GET', P .. 'k:' .. key)
    if id then drop(id) end
  elseif kind == SUBJECT then
    raise(key, 0, at)
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'u:' .. key, '-inf', int(at))) do
      local r = record(id)
      if not r then
        call('ZREM', P .. 'u:' .. key, id)
      elseif r[SESSION_KEY] ~= except then
        drop(id)
      end
    end
  elseif kind == ISSUER then
    raise(key, 0, at)
  elseif kind == CLAIMS then
    -- Given back to a store that lost it: tokens minted from here on must carry a version that passes.
    local id = call('GET', P .. 'k:' .. key)
    local r = id and record(id)
    if r and tonumber(r[VERSION]) < at then change(id, 'version', int(at)) end
  end
end

-- Ends what the entry hits and appends it, unless the one there hits as much for as long. There is at most one of a kind, key and exception:
-- what two would say, it says. Returns its number, instant and expiry.
local function append(kind, key, except, at, expires)
  take_effect(kind, key, except, at)
  local field = kind .. key .. except
  local was_seq, was_at, was_expires = (call('HGET', ENTRY, field) or ''):match('^(%d+):(%d+):(%d+)$')
  if was_seq then
    was_at, was_expires = tonumber(was_at), tonumber(was_expires)
    if was_at >= at and was_expires >= expires then return tonumber(was_seq), was_at, was_expires end
    at, expires = math.max(at, was_at), math.max(expires, was_expires)
    call('XDEL', LOG, was_seq .. '-0')
  end
  put(field, at, expires)
  if not was_seq then
    live = live + 1
    call('HSET', HEAD, 'live', live)
  end
  return seq, at, expires
end

local function deny(r)
  return append(SESSION, r[SESSION_KEY], '', 0, seconds(later(tonumber(r[END]), SLACK)))
end
