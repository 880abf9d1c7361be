-- A vector index of one tenant: see everthread/recall/redis_index.py. Runs alone, without thread.lua.
--
-- KEYS[1]: the beginning of the tenant's keys, with their hash tag. Under it:
--   :models            a set of the models
--   :tenants           a set, at the default tenant only: the tenants that have an index
--   :MODEL:vectors     a vector set; an element is "turn:part:thread"
--   :MODEL:marks       a hash: for each thread its mark
--   :MODEL:threads     a sorted set of the threads, for their order
--   :MODEL:of:THREAD   a hash: for each "turn:part" of a thread "last,seq,created_ms,digest"
-- ARGV: what to do, the model, then its arguments.
local root, what, model = KEYS[1], ARGV[1], ARGV[2]
local base = root .. ':' .. model
local vectors, marks, threads = base .. ':vectors', base .. ':marks', base .. ':threads'

local function remove(thread)
    local entries = base .. ':of:' .. thread
    for _, place in ipairs(redis.call('HKEYS', entries)) do
        redis.call('VREM', vectors, place .. ':' .. thread)
    end
    redis.call('DEL', entries)
    redis.call('HDEL', marks, thread)
    redis.call('ZREM', threads, thread)
end

if what == 'exists' then
    return redis.call('EXISTS', vectors, marks)
elseif what == 'marks' then
    return #ARGV > 2 and redis.call('HMGET', marks, unpack(ARGV, 3)) or {}
elseif what == 'add' then
    -- thread, expected mark, mark, number of places to remove, these, then for each entry its place, facts and vector
    local thread, expected, mark, gone = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
    if (redis.call('HGET', marks, thread) or '') ~= expected then
        return 0
    end
    local entries = base .. ':of:' .. thread
    for i = 7, 6 + gone do
        redis.call('VREM', vectors, ARGV[i] .. ':' .. thread)
        redis.call('HDEL', entries, ARGV[i])
    end
    for i = 7 + gone, #ARGV, 3 do
        local element = ARGV[i] .. ':' .. thread
        redis.call('VREM', vectors, element)
        redis.call('VADD', vectors, 'FP32', ARGV[i + 2], element, 'Q8')
        redis.call('HSET', entries, ARGV[i], ARGV[i + 1])
    end
    redis.call('HSET', marks, thread, mark)
    redis.call('ZADD', threads, 0, thread)
    redis.call('SADD', root .. ':models', model)
    return 1
elseif what == 'entries' then
    return redis.call('HGETALL', base .. ':of:' .. ARGV[3])
elseif what == 'remove' then
    remove(ARGV[3])
    return 1
elseif what == 'delete' then
    local count = 0
    for _, each in ipairs(redis.call('SMEMBERS', root .. ':models')) do
        local of = root .. ':' .. each
        if redis.call('EXISTS', of .. ':vectors') == 1 then
            count = count + redis.call('VCARD', of .. ':vectors')
        end
        for _, thread in ipairs(redis.call('HKEYS', of .. ':marks')) do
            redis.call('DEL', of .. ':of:' .. thread)
        end
        redis.call('DEL', of .. ':vectors', of .. ':marks', of .. ':threads')
    end
    redis.call('DEL', root .. ':models')
    return count
elseif what == 'note' then
    return redis.call('SADD', root .. ':tenants', ARGV[3])
elseif what == 'tenants' then
    return redis.call('SMEMBERS', root .. ':tenants')
elseif what == 'threads' then
    return redis.call('ZRANGEBYLEX', threads, ARGV[3] == '' and '-' or '(' .. ARGV[3], '+', 'LIMIT', 0, ARGV[4])
elseif what == 'count' then
    return redis.call('EXISTS', vectors) == 1 and redis.call('VCARD', vectors) or 0
elseif what == 'nearest' then
    -- vector, number, number of candidates
    local found = {}
    if redis.call('EXISTS', vectors) == 1 then
        local near = redis.call('VSIM', vectors, 'FP32', ARGV[3], 'WITHSCORES', 'COUNT', ARGV[4], 'EF', ARGV[5])
        for i = 1, #near, 2 do
            local place, thread = string.match(near[i], '^(%d+:%d+):(.*)$')
            local facts = place and redis.call('HGET', base .. ':of:' .. thread, place)
            if facts then
                for _, each in ipairs({thread, place, facts, near[i + 1]}) do
                    found[#found + 1] = each
                end
            end
        end
    end
    return found
end
