-- Begins every script. KEYS[1] is the namespace's prefix, "{name}:"; all its keys share that hash tag. None ever has a time to live,
-- so that no `volatile-*` policy evicts one. Keys and ids are raw bytes, instants ms, expiries of entries s.
--   head   hash    schema, epoch, born, run and replid (the server's incarnation), seq, and how many entries and stamps there are
--   log    stream  the entries, under <seq>-0
--   entry  hash    kind, key and exception of a live entry -> seq:instant:expires;  expiry  zset  the same, by expiry
--   stamp  hash    key of a subject or issuer -> created:cutoff:expires;            fading  zset  the same, by expiry
--   lease  hash    digest of a refresh token -> register of its lease;              lapsing zset  the same, by expiry
--   s:<id> hash    a session;  k:<session key>  its id;  u:<subject key>  zset  ids by creation;  ends  zset  ids by end
local P = KEYS[1]
local HEAD, LOG, ENTRY, EXPIRY = P .. 'head', P .. 'log', P .. 'entry', P .. 'expiry'
local STAMP, FADING, ENDS = P .. 'stamp', P .. 'fading', P .. 'ends'
local RUN, FRESH, ABSENT, GIVEN, DURABLE = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local SCHEMA, SLACK, SKEW = 1, 120000, 86400000
-- Numbers are doubles: beyond this they would not be whole.
local MOST, NEVER = 9007199254740991, 4294967295
local TOKEN, SESSION, SUBJECT, ISSUER, CLAIMS = '1', '2', '3', '4', '5'

local call = redis.call
local clock = call('TIME')
local TIME = clock[1] * 1000 + math.floor(clock[2] / 1000)
local NOW = GIVEN == '' and TIME or tonumber(GIVEN)

local function arg(n) return ARGV[5 + n] end
local function int(n) return string.format('%.0f', n) end
local function later(at, by) return math.min(at + by, MOST) end
local function seconds(ms) return math.min(math.ceil(ms / 1000), NEVER) end

-- Where the log stands, once it is open.
local epoch, born, seq, live, stamps

local function put(field, at, expires)
  seq = seq + 1
  call('XADD', LOG, int(seq) .. '-0', 'kind', field:sub(1, 1), 'key', field:sub(2, 17), 'except', field:sub(18),
    'at', int(at), 'expires', int(expires))
  call('HSET', HEAD, 'seq', int(seq))
  call('HSET', ENTRY, field, int(seq) .. ':' .. int(at) .. ':' .. int(expires))
  call('ZADD', EXPIRY, int(expires), field)
end

local function stamp(key)
  local created, cutoff, expires = (call('HGET', STAMP, key) or ''):match('^(%d+):(%d+):(%d+)$')
  return tonumber(created), tonumber(cutoff), tonumber(expires)
end

local function raise(key, created, cutoff)
  local expires = later(math.max(created, cutoff), SKEW)
  local was_created, was_cutoff, was_expires = stamp(key)
  if was_created then
    created, cutoff = math.max(created, was_created), math.max(cutoff, was_cutoff)
    expires = math.max(expires, was_expires)
  else
    stamps = stamps + 1
    call('HSET', HEAD, 'stamps', stamps)
  end
  call('HSET', STAMP, key, int(created) .. ':' .. int(cutoff) .. ':' .. int(expires))
  call('ZADD', FADING, int(expires), key)
end

-- Something is gone: puts together what the log and its index, the stamps and theirs still tell.
local function rebuild()
  local found, order, stamped = {}, {}, {}
  local function keep(field, n, at, expires)
    local one = found[field]
    if not one then
      one = { n, 0, 0 }
      found[field] = one
      order[#order + 1] = field
    end
    one[2], one[3] = math.max(one[2], at), math.max(one[3], expires)
    seq = math.max(seq, n)
  end
  for _, item in ipairs(call('XRANGE', LOG, '-', '+')) do
    local f = item[2]
    keep(f[2] .. f[4] .. f[6], tonumber(item[1]:match('^%d+')), tonumber(f[8]), tonumber(f[10]))
  end
  local index = call('HGETALL', ENTRY)
  for i = 1, #index, 2 do
    local n, at, expires = index[i + 1]:match('^(%d+):(%d+):(%d+)$')
    keep(index[i], tonumber(n), tonumber(at), tonumber(expires))
  end
  table.sort(order, function(a, b)
    if found[a][1] == found[b][1] then return a < b end
    return found[a][1] < found[b][1]
  end)
  index = call('HGETALL', STAMP)
  for i = 1, #index, 2 do
    local created, cutoff = index[i + 1]:match('^(%d+):(%d+):%d+$')
    stamped[#stamped + 1] = { index[i], tonumber(created), tonumber(cutoff) }
  end
  call('DEL', LOG, ENTRY, EXPIRY, STAMP, FADING)
  live, stamps = #order, 0
  call('HSET', HEAD, 'seq', int(seq), 'live', live, 'stamps', 0)
  for _, one in ipairs(stamped) do raise(one[1], one[2], one[3]) end
  for _, field in ipairs(order) do
    local kind, at = field:sub(1, 1), found[field][2]
    put(field, at, found[field][3])
    if kind == SUBJECT or kind == ISSUER then raise(field:sub(2, 17), 0, at) end
  end
end

-- A new incarnation of the log: its readers unite it with what they hold, and give back what it lacks.
local function begin(at, replid)
  epoch, born = FRESH, at
  call('HSET', HEAD, 'schema', SCHEMA, 'epoch', epoch, 'born', int(born), 'run', RUN, 'replid', replid)
end

-- The same where the server is another incarnation and the data are whole. A server that takes no writes for now (no memory, no disk,
-- no replicas) is read all the same, so the epoch follows from what is there: everybody finds the same until it can be written down.
local function succeed(replid)
  epoch, born = redis.sha1hex(epoch .. RUN .. replid):sub(1, 16), TIME
  redis.pcall('HSET', HEAD, 'epoch', epoch, 'born', int(born), 'run', RUN, 'replid', replid)
end

-- Judges what is there before anything is read or written. A new epoch begins where the server was restarted, promoted or put back, and
-- where anything was taken from the log.
local function open()
  local info = call('INFO', 'replication')
  if not info:find('role:master', 1, true) then return redis.error_reply('NOTPRIMARY this is a replica') end
  local replid = info:match('master_replid:(%x+)') or ''
  local h = call('HMGET', HEAD, 'schema', 'epoch', 'born', 'run', 'replid', 'seq', 'live', 'stamps')
  local schema = tonumber(h[1])
  if not schema and call('EXISTS', HEAD) == 1 then return redis.error_reply('FOREIGN not ours') end
  if schema and schema ~= SCHEMA then
    return redis.error_reply((schema > SCHEMA and 'NEWERSCHEMA ' or 'OLDERSCHEMA ') .. h[1])
  end
  epoch, born, seq = h[2], tonumber(h[3]), tonumber(h[6]) or 0
  live, stamps = tonumber(h[7]) or 0, tonumber(h[8]) or 0
  if not schema and call('EXISTS', LOG, ENTRY, EXPIRY, STAMP, FADING, ENDS) == 0 then
    if ABSENT == 'refuse' then return redis.error_reply('NONAMESPACE it was never created') end
    begin(ABSENT == 'old' and 0 or TIME, replid)
    call('HSET', HEAD, 'seq', 0, 'live', 0, 'stamps', 0)
    return
  end
  local first = schema and {} or call('XRANGE', LOG, '-', '+', 'COUNT', 1)
  if first[1] and first[1][2][1] ~= 'kind' then return redis.error_reply('FOREIGN not ours') end
  local whole = schema and epoch and born
    and call('XLEN', LOG) == live and call('HLEN', ENTRY) == live and call('ZCARD', EXPIRY) == live
    and call('HLEN', STAMP) == stamps and call('ZCARD', FADING) == stamps
  if not whole then
    begin(TIME, replid)
    rebuild()
  elseif h[4] ~= RUN or h[5] ~= replid then
    succeed(replid)
  end
  -- WAIT waits for this connection's last write: a call that finds its work done already must have one, too.
  if DURABLE ~= '' then call('HINCRBY', HEAD, 'waits', 1) end
end
