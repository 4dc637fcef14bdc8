"""What Redis does in one step each, for topics that are kept.

Of each topic that has a history there are a hash, with its epoch (``e``), the last offset (``o``) and the identity of
the Redis that has counted it (``r``), and a stream of the messages, whose ids are their offsets. The identity is the
replication id, which a Redis has anew when it starts, and when it is promoted: so whenever it may have lost the end of
what it had, there is another epoch.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EPOCH_SECONDS", "HISTORY", "PUBLISH", "SENDER_SECONDS"]

EPOCH_SECONDS: Final = 7 * 86400
"""For how long a topic has its epoch after its history has gone."""

SENDER_SECONDS: Final = 3600
"""For how long the last number of a sender is known."""

_RECORD: Final = """
local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local record = redis.call('HMGET', KEYS[1], 'r', 'e', 'o')
local epoch, offset = record[2], tonumber(record[3] or 0)
if record[1] ~= id then
    redis.call('DEL', KEYS[1], KEYS[2])
    epoch, offset = string.sub(redis.sha1hex(id .. seed), 1, 16), 0
    redis.call('HSET', KEYS[1], 'r', id, 'e', epoch)
end
"""
"""Find, or begin, the record of a topic."""

PUBLISH: Final = (
    """
local channel, head, payload, number, key_ttl, size, ttl, epoch_ttl, sender_ttl = unpack(ARGV)
local last = redis.call('SET', KEYS[3], number, 'EX', sender_ttl, 'GET')
if last and tonumber(last) >= tonumber(number) then
    redis.call('SET', KEYS[3], last, 'EX', sender_ttl)
    return 0
end
if key_ttl ~= '0' and not redis.call('SET', KEYS[4], '', 'NX', 'EX', key_ttl) then return 0 end
if size == '0' then return redis.call('PUBLISH', channel, head .. payload) end
local seed = head
"""
    + _RECORD
    + """
offset = string.format('%.0f', offset + 1)
local data = head .. epoch .. ' ' .. offset .. '\\n' .. payload
redis.call('HSET', KEYS[1], 'o', offset)
redis.call('XADD', KEYS[2], 'MAXLEN', '=', size, offset .. '-0', 'd', data)
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('PEXPIRE', KEYS[1], epoch_ttl)
return redis.call('PUBLISH', channel, data)
"""
)
"""Publish what its sender has not published before, and nobody under its key; give it a position, and keep it.

Keys: the record, the stream, the sender, and the publication's own. Arguments: the channel; what stands before the
position; the payload; its number; for how many seconds its key is known, 0 without; how many messages are kept, 0 for
none; for how many milliseconds they are, and the epoch is; for how many seconds the sender is known.
"""

HISTORY: Final = (
    """
local since_epoch, since_offset, newest, epoch_ttl, seed = unpack(ARGV)
"""
    + _RECORD
    + """
redis.call('PEXPIRE', KEYS[1], epoch_ttl)
local position = string.format('%.0f', offset)
local since = tonumber(since_offset)
if since_epoch == epoch and since <= offset then
    local missed = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', since + 1), '+')
    if #missed == offset - since then return {epoch, position, 1, missed} end
end
local found = {}
if newest ~= '0' then
    local backward = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', newest)
    for index = #backward, 1, -1 do found[#found + 1] = backward[index] end
end
return {epoch, position, 0, found}
"""
)
"""Read what is kept.

Keys: the record and the stream. Arguments: the epoch and the offset of a position, 0 without; how many of the newest
are wanted where not all that came after it is there; for how many milliseconds the epoch is kept; something that no
other topic has, for a new epoch.
"""
