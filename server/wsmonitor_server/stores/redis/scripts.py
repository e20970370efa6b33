"""The scripts that Redis runs: each does one thing as a whole, so that nobody sees half of it.

Their keys begin with the prefix, which is the first argument; the second is the node.

===================  ======================================================================
``meta``             hash: epoch of the store, and the Redis that it was last met on
``dir``, ``att``     hash session → line of the directory; set of sessions that need attention
``s:S:h``            hash, the head: version, seq, epoch, digest, attention, first, born, gen
``s:S:e`` ``p`` …    entities, producers, ``r`` retired commands, ``v`` values that are referred to
``s:S:c``            stream of commits, ids ``<head after>-<version after>``: history
``s:S:b``            hash node → its last commit's id, and when (seconds)
``s:S:k``, ``l:…``   set of steps that have logs; list of records for each: ``<n> <JSON>``
``u:…``, ``v:…``     large values: see `VALUE_WRITE`
``runs`` …           hashes: run numbers, ``tombstones``, ``revoked``
``bus``, ``bus:n``   stream of messages, ids ``<n>-0`` without a hole; the last n
``marks``            hash node → what tokens are verified with there, in short
``nodes``            sorted set of nodes by when they count as gone (milliseconds)
``w:S``, ``wn:N``    who watches: hash node → people; set of sessions of a node
``warden``           string with a time to live: the node that watches over the rest
===================  ======================================================================

A script is not undone when it fails halfway. None can: what is refused for want of memory, by a replica or a
broken disk, Redis refuses at a script's first write, and what is compared is compared before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

SCHEMA: Final = 1
"""The version of all this. What a later program has written, this one would not keep whole."""

BUS_KEPT: Final = 10_000
"""Messages that the bus keeps, about: who is further behind is told that it has lost some."""

INLINE: Final = 32 * 1024
"""Bytes up to which a commit's record stands on the bus itself. A larger one is read from the session's
stream: with `BUS_KEPT` this is what bounds the bus."""

COMMITS_KEPT: Final = 10_000
"""Commits that a session's stream keeps at most, about; the history's own limits count events."""

CHUNK: Final = 1024 * 1024
"""Bytes of a large value under one key."""


@dataclass(frozen=True, slots=True)
class Script:
    """Its text, and the name that Redis has for it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis' own naming of scripts; nothing is kept secret or verified by it.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


_SMALL: Final = "#!lua flags=allow-oom\n"
"""Begins a script that Redis is to run also at its limit of memory, because it takes next to none: what is
refused then is what is published, and neither a revocation nor that a node is alive."""

_COMMON: Final = f"""
local P, node = ARGV[1], ARGV[2]
local function of(session, what) return P .. 's:' .. session .. ':' .. what end
local function log_of(session, step) return P .. 'l:' .. #session .. ':' .. session .. ':' .. step end
local function epoch() return redis.call('HGET', P .. 'meta', 'epoch') or '' end
local function tell(...)
  local n = redis.call('INCR', P .. 'bus:n')
  redis.call('XADD', P .. 'bus', 'MAXLEN', '~', {BUS_KEPT}, string.format('%.0f-0', n), ...)
end
-- Lua passes some thousand arguments at once, and not more.
local function write(command, key, list)
  for first = 1, #list, 4000 do
    redis.call(command, key, unpack(list, first, math.min(first + 3999, #list)))
  end
end
local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
"""

_VALUES: Final = f"""
local function value(session, sha) return P .. 'v:' .. #session .. ':' .. session .. ':' .. sha end
local function uploads(session) return P .. 'u:' .. session end
local function touch(session, sha)
  redis.call('ZADD', P .. 'touched', redis.call('TIME')[1], sha .. session)
end
local function drop(session, sha)
  local key = value(session, sha)
  local received = tonumber(redis.call('HGET', key, 'received') or 0)
  for n = 0, math.floor(received / {CHUNK}) do redis.call('UNLINK', key .. ':' .. n) end
  redis.call('UNLINK', key)
  redis.call('SREM', uploads(session), sha)
  redis.call('ZREM', P .. 'touched', sha .. session)
  if received > 0 then redis.call('DECRBY', P .. 'vbytes', received) end
end
"""

_NODES: Final = """
local function forget(one)
  for _, session in ipairs(redis.call('SMEMBERS', P .. 'wn:' .. one)) do
    redis.call('HDEL', P .. 'w:' .. session, one)
  end
  redis.call('DEL', P .. 'wn:' .. one)
  if redis.call('GET', P .. 'warden') == one then redis.call('DEL', P .. 'warden') end
  redis.call('ZREM', P .. 'nodes', one)
  redis.call('HDEL', P .. 'marks', one)
  tell('k', 'g', 'n', one)
end
"""

SETTLE: Final = Script(
    _SMALL
    + _COMMON
    + """
-- run id, replication id, a new epoch if one is needed, schema -> the epoch, the bus's last number, schema
-- Another Redis than the last time may have lost something: the first node to see that names the epoch.
local known = redis.call('HMGET', P .. 'meta', 'epoch', 'run_id', 'replid', 'schema')
local number = redis.call('GET', P .. 'bus:n') or '0'
if known[4] and tonumber(known[4]) > tonumber(ARGV[6]) then return {'', number, known[4]} end
if known[1] and known[2] == ARGV[3] and known[3] == ARGV[4] then return {known[1], number, ARGV[6]} end
redis.call('HSET', P .. 'meta', 'epoch', ARGV[5], 'run_id', ARGV[3], 'replid', ARGV[4], 'schema', ARGV[6])
if known[1] then tell('k', 'n') end
return {ARGV[5], redis.call('GET', P .. 'bus:n') or '0', ARGV[6]}
"""
)

COMMIT: Final = Script(
    _COMMON
    + f"""
-- the store's epoch, commit's id, log records per step, orders -> the store's epoch now, 1 (done) or 0 each
local generation, id, log_records = ARGV[3], ARGV[4], ARGV[5]
local current = epoch()
local now = tonumber(redis.call('TIME')[1])
local result = {{current}}
for i, one in ipairs(cmsgpack.unpack(ARGV[6])) do
  local session, session_epoch, expected, seq, version, born, place, record, entities, drops, producers,
    retired, values, released, logs, first, digest, listing, attention = unpack(one, 1, 19)
  local h, b = of(session, 'h'), of(session, 'b')
  local head = redis.call('HMGET', h, 'version', 'seq', 'born', 'gen', 'epoch')
  local last = redis.call('HGET', b, node)
  if last and string.sub(last, 1, #id) == id then
    result[i + 1] = 1
  elseif current ~= generation or tonumber(head[1] or 0) ~= version or tonumber(head[2] or 0) ~= expected
      or (head[1] and (head[3] ~= born or head[4] ~= current)) then
    result[i + 1] = 0
  else
    local c = of(session, 'c')
    -- The kept events name the epoch that has ended.
    if head[5] and head[5] ~= session_epoch then redis.call('DEL', c) end
    redis.call('XADD', c, 'MAXLEN', '~', {COMMITS_KEPT}, place, 'd', record)
    redis.call('HSET', h, 'version', version + 1, 'seq', seq, 'epoch', session_epoch, 'digest', digest,
      'attention', attention)
    if not head[1] then
      redis.call('HSET', h, 'born', id, 'gen', current)
      redis.call('HSETNX', P .. 'dir', session, '')
    end
    write('HDEL', of(session, 'e'), drops)
    write('HSET', of(session, 'e'), entities)
    write('HSET', of(session, 'p'), producers)
    write('HSET', of(session, 'r'), retired)
    write('SADD', of(session, 'v'), values)
    write('SREM', of(session, 'v'), released)
    for _, step in ipairs(logs) do
      local key = log_of(session, step[1])
      write('RPUSH', key, step[2])
      redis.call('LTRIM', key, '-' .. log_records, -1)
      redis.call('SADD', of(session, 'k'), step[1])
    end
    if first > 0 then
      redis.call('HSET', h, 'first', first)
      redis.call('XTRIM', c, 'MINID', '~', string.format('%.0f', first))
    end
    if listing ~= '' then redis.call('HSET', P .. 'dir', session, listing) end
    redis.call(attention == '1' and 'SADD' or 'SREM', P .. 'att', session)
    if #record <= {INLINE} then
      tell('k', 'c', 's', session, 'i', place, 'd', record)
    else
      tell('k', 'c', 's', session, 'i', place, 'o', id)
    end
    redis.call('HSET', b, node, id .. ' ' .. now)
    if redis.call('HLEN', b) > 32 then
      local all = redis.call('HGETALL', b)
      for at = 1, #all, 2 do
        local made = tonumber(string.match(all[at + 1], ' (%d+)$') or 0)
        if now - made > 60 then redis.call('HDEL', b, all[at]) end
      end
    end
    result[i + 1] = 1
  end
end
return result
"""
)

LOAD: Final = Script(
    _COMMON
    + """
-- the store's epoch, session, a new epoch if one is needed, entities at most
-- -> the store's epoch now, and then nothing where there is no session, or this script is to be asked again
local generation, session, fresh, most = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local current, h = epoch(), of(ARGV[4], 'h')
if current ~= generation then return {current} end
local head = redis.call('HMGET', h, 'gen', 'seq', 'attention')
if not head[1] then return {current} end
if head[1] ~= current then
  -- From before a loss: it goes on under a new epoch. Who asks first names it for all.
  redis.call('DEL', of(session, 'c'))
  local version = redis.call('HINCRBY', h, 'version', 1)
  redis.call('HSET', h, 'epoch', fresh, 'gen', current, 'born', fresh)
  tell('k', 'r', 's', session, 'v', version, 'e', fresh, 'h', head[2],
    'l', redis.call('HGET', P .. 'dir', session) or '', 'a', head[3], 'n', node)
end
local entities = false
if redis.call('HLEN', of(session, 'e')) <= most then entities = redis.call('HGETALL', of(session, 'e')) end
return {current, redis.call('HGETALL', h), entities, redis.call('HVALS', of(session, 'p')),
  redis.call('SMEMBERS', of(session, 'v')), redis.call('HLEN', of(session, 'r')),
  redis.call('XRANGE', of(session, 'c'), '-', '+')}
"""
)

MISSED: Final = Script(
    _COMMON
    + """
-- session, version -> version and incarnation now; the commits after it, newest first
local session, version = ARGV[3], tonumber(ARGV[4])
local head = redis.call('HMGET', of(session, 'h'), 'version', 'born')
if not head[1] then return {} end
local found, last = {}, '+'
while #found < 1000 do
  local part = redis.call('XREVRANGE', of(session, 'c'), last, '-', 'COUNT', 100)
  for _, one in ipairs(part) do
    if tonumber(string.match(one[1], '-(%d+)$')) <= version then return {head[1], head[2], found} end
    found[#found + 1] = {one[1], one[2][2]}
  end
  if #part < 100 then break end
  last = '(' .. part[#part][1]
end
return {head[1], head[2], found}
"""
)

REMOVE: Final = Script(
    _COMMON
    + _VALUES
    + """
-- session, when
local session, at = ARGV[3], ARGV[4]
-- Of one whose head somebody has deleted the rest goes, too.
local there = redis.call('EXISTS', of(session, 'h')) + redis.call('HEXISTS', P .. 'dir', session) > 0
for _, step in ipairs(redis.call('SMEMBERS', of(session, 'k'))) do
  redis.call('UNLINK', log_of(session, step))
end
for _, what in ipairs({'h', 'e', 'c', 'p', 'r', 'v', 'b', 'k'}) do redis.call('UNLINK', of(session, what)) end
for _, sha in ipairs(redis.call('SMEMBERS', uploads(session))) do drop(session, sha) end
redis.call('HDEL', P .. 'dir', session)
redis.call('SREM', P .. 'att', session)
if there then
  redis.call('HSET', P .. 'tombstones', session, at)
  tell('k', 'x', 's', session, 't', at, 'n', node)
end
return 1
"""
)

LOGS: Final = Script(
    _COMMON
    + """
-- session, step, first, limit -> the first kept number, records
local key = log_of(ARGV[3], ARGV[4])
local oldest = redis.call('LINDEX', key, 0)
if not oldest then return {0, {}} end
local kept = tonumber(string.match(oldest, '^(%d+) '))
local from = math.max(0, tonumber(ARGV[5]) - kept)
if tonumber(ARGV[6]) < 1 then return {kept, {}} end
return {kept, redis.call('LRANGE', key, from, from + tonumber(ARGV[6]) - 1)}
"""
)

FORGET: Final = Script(
    _COMMON
    + """
-- hash, then fields and values in turn: deletes the fields that still have these values
for at = 4, #ARGV, 2 do
  local name = ARGV[at]
  if redis.call('HGET', P .. ARGV[3], name) == ARGV[at + 1] then redis.call('HDEL', P .. ARGV[3], name) end
end
return 1
"""
)

REVOKE: Final = Script(
    _SMALL
    + _COMMON
    + """
-- jti, expires
redis.call('HSET', P .. 'revoked', ARGV[3], ARGV[4])
tell('k', 't', 'j', ARGV[3], 't', ARGV[4])
return 1
"""
)

VALUE_BEGIN: Final = Script(
    _COMMON
    + _VALUES
    + """
-- session, sha256 -> bytes received, 1 when they are whole, and verified
local key = value(ARGV[3], ARGV[4])
local known = redis.call('HMGET', key, 'received', 'whole')
if not known[1] then return {0, 0} end
touch(ARGV[3], ARGV[4])
return {tonumber(known[1]), known[2] and 1 or 0}
"""
)

VALUE_WRITE: Final = Script(
    _COMMON
    + _VALUES
    + f"""
-- session, sha256, total, offset, data -> bytes received, 1 when whole, 1 when it was not for this place
-- ``v:…`` has what is known of a value, ``v:…:0``, ``:1`` … its bytes, a chunk each.
local session, sha, total, offset, data = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local key = value(session, sha)
local known = redis.call('HMGET', key, 'received', 'whole')
local received = tonumber(known[1] or 0)
if known[2] then return {{received, 1, 0}} end
if offset ~= received or offset + #data > total then return {{received, 0, 1}} end
local from = 1
while from <= #data do
  local at = received + from - 1
  local room = {CHUNK} - at % {CHUNK}
  redis.call('APPEND', key .. ':' .. math.floor(at / {CHUNK}), string.sub(data, from, from + room - 1))
  from = from + room
end
redis.call('HSET', key, 'received', received + #data)
redis.call('INCRBY', P .. 'vbytes', #data)
redis.call('SADD', uploads(session), sha)
touch(session, sha)
return {{received + #data, 0, 0}}
"""
)

VALUE_END: Final = Script(
    _COMMON
    + _VALUES
    + """
-- session, sha256, 1 when its bytes were found to be right
local key = value(ARGV[3], ARGV[4])
if ARGV[5] ~= '1' then
  if not redis.call('HGET', key, 'whole') then drop(ARGV[3], ARGV[4]) end
elseif redis.call('EXISTS', key) == 1 then
  redis.call('HSET', key, 'whole', '1')
  touch(ARGV[3], ARGV[4])
end
return 1
"""
)

VALUE_SWEEP: Final = Script(
    _COMMON
    + _VALUES
    + """
-- older than so many seconds, then members of `touched` -> how many went
local limit, count = redis.call('TIME')[1] - tonumber(ARGV[3]), 0
for at = 4, #ARGV do
  local sha, session = string.sub(ARGV[at], 1, 64), string.sub(ARGV[at], 65)
  local touched = redis.call('ZSCORE', P .. 'touched', ARGV[at])
  if touched and tonumber(touched) <= limit and redis.call('SISMEMBER', of(session, 'v'), sha) == 0 then
    drop(session, sha)
    count = count + 1
  end
end
return count
"""
)

BEAT: Final = Script(
    _SMALL
    + _COMMON
    + _NODES
    + """
-- milliseconds until silence counts as the end, milliseconds of the lease, what tokens are verified with
-- -> 1 when it was not among the living, 1 when it is the warden, the store's epoch, the bus's last number,
--    how many live, one that verifies tokens with something else ('' for none)
local now = milliseconds()
local fresh = redis.call('ZSCORE', P .. 'nodes', node) and 0 or 1
redis.call('ZADD', P .. 'nodes', now + tonumber(ARGV[3]), node)
for _, one in ipairs(redis.call('ZRANGEBYSCORE', P .. 'nodes', '-inf', '(' .. now)) do forget(one) end
local warden, mine = redis.call('GET', P .. 'warden'), 0
if not warden or warden == node then
  redis.call('SET', P .. 'warden', node, 'PX', ARGV[4])
  mine = 1
end
local other = ''
if ARGV[5] ~= '' then
  redis.call('HSET', P .. 'marks', node, ARGV[5])
  local marks = redis.call('HGETALL', P .. 'marks')
  for at = 1, #marks, 2 do if marks[at + 1] ~= ARGV[5] then other = marks[at] end end
end
local number = redis.call('GET', P .. 'bus:n') or '0'
return {fresh, mine, epoch(), number, redis.call('ZCARD', P .. 'nodes'), other}
"""
)

LEAVE: Final = Script(
    _SMALL + _COMMON + _NODES + "if redis.call('ZSCORE', P .. 'nodes', node) then forget(node) end return 1"
)

NODES: Final = Script(
    _COMMON
    + "return redis.call('ZRANGEBYSCORE', P .. 'nodes', string.format('%.0f', milliseconds()), '+inf')"
)

WATCH: Final = Script(
    _SMALL
    + _COMMON
    + """
-- session, people
if ARGV[4] == '' then
  redis.call('HDEL', P .. 'w:' .. ARGV[3], node)
  redis.call('SREM', P .. 'wn:' .. node, ARGV[3])
else
  redis.call('HSET', P .. 'w:' .. ARGV[3], node, ARGV[4])
  redis.call('SADD', P .. 'wn:' .. node, ARGV[3])
end
tell('k', 'w', 's', ARGV[3], 'n', node, 'p', ARGV[4])
return 1
"""
)

WATCHING: Final = Script(
    _COMMON
    + """
-- session -> the living nodes, who watches at each node
return {redis.call('ZRANGEBYSCORE', P .. 'nodes', string.format('%.0f', milliseconds()), '+inf'),
  redis.call('HGETALL', P .. 'w:' .. ARGV[3])}
"""
)
