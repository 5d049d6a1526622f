-- Give a job other data, if its data is still what was read and no worker has it in hand.
--
-- ARGV  1 key prefix  2 its id  3 the SHA-1 of its data as it was read  4 new data  5 new description
--       6 '1': what its producer noted beside (`meta`) is to go
--
-- Returns 'changed': its data is another by now, or it is gone; 'started': a worker has it in hand, it is left as it is;
-- else it is done, and stands where the answer says: 'quarantined', or its status as RQ has it.

local prefix, id, read, data, description, without_meta = unpack(ARGV)
local job = prefix .. ':job:' .. id

local function is_in(list)
  return type(redis.pcall('LPOS', list, id)) == 'number'
end

local now = redis.pcall('HGET', job, 'data')
if type(now) ~= 'string' or redis.sha1hex(now) ~= read then return 'changed' end

local fields = redis.call('HMGET', job, 'origin', 'status')
local queue, status = fields[1] or '', fields[2] or ''
if is_in(prefix .. ':notiflog:quarantine:' .. queue) then -- with the status that it had before
  status = 'quarantined'
elseif status == 'started' or is_in(prefix .. ':queue:' .. queue .. ':intermediate') then
  return 'started'
end

-- Removes nothing; but having written, a script may go on when Redis is full (maxmemory): this one frees more than it
-- takes.
redis.call('HDEL', job, '')
redis.call('HSET', job, 'data', data, 'description', description)
if without_meta == '1' then redis.call('HDEL', job, 'meta') end
return status
