-- Is a job still a worker's, and can RQ's own code work with what stands beside it?
--
-- KEYS  1 started registry, then the keys beside the job and those that the queue's jobs share
-- ARGV  1 member of the started registry, then the type of value for each of the other keys
--
-- Returns 1 if the job is still this worker's: it may have stalled, and another taken it over.

mend(KEYS[1], 'zset')
for at = 2, #KEYS do mend(KEYS[at], ARGV[at]) end
return redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
