-- Tries what the other scripts do on a key that is not there, without leaving a trace; names what the user may not.
local key = KEYS[1] .. 'probe'
for _, line in ipairs({ { 'INFO', 'replication' }, { 'TIME' }, { 'EXISTS', key }, { 'GET', key }, { 'SET', key, '', 'XX' }, { 'DEL', key },
  { 'HGET', key, 'a' }, { 'HMGET', key, 'a' }, { 'HGETALL', key }, { 'HLEN', key }, { 'HEXISTS', key, 'a' }, { 'HDEL', key, 'a' },
  { 'XLEN', key }, { 'XRANGE', key, '-', '+' }, { 'XREAD', 'COUNT', 1, 'STREAMS', key, '0-0' }, { 'XDEL', key, '1-0' }, { 'XADD', key, 'NOMKSTREAM', '1-0', 'a', 'b' },
  { 'ZCARD', key }, { 'ZSCORE', key, 'a' }, { 'ZRANGE', key, 0, -1 }, { 'ZRANGEBYSCORE', key, 0, 1 }, { 'ZREVRANGEBYSCORE', key, 1, 0 },
  { 'ZREM', key, 'a' }, { 'ZADD', key, 'XX', 1, 'a' }, { 'HSET', key, 'a', 'b' }, { 'HINCRBY', key, 'b', 1 }, { 'DEL', key } }) do
  local reply = redis.pcall(unpack(line))
  local err = type(reply) == 'table' and reply.err
  if err and (err:find('NOPERM', 1, true) or err:find("can't run", 1, true) or err:find("can't access", 1, true)) then
    return redis.error_reply('NOPERM ' .. line[1] .. ': ' .. err)
  end
  if err then return reply end
end
return 'OK'
