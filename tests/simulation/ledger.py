"""What a Redis was made to keep, read from its own keys: the truth about runs of several servers.

The oracle is told of commits by what the scripts have written, at that moment, and never by a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from wsmonitor.protocol.entities import LogRecord
from wsmonitor.protocol.reducer import SessionState, decode_entity
from wsmonitor_server.stores.base import Commit
from wsmonitor_server.stores.redis import records

from .redis_data import Data

if TYPE_CHECKING:
    from .oracle import Oracle

PREFIX: Final = b"wsm:"
_SESSIONS: Final = PREFIX + b"s:"
_LOGS: Final = PREFIX + b"l:"

_decode_log: Final = msgspec.json.Decoder(LogRecord).decode


class Ledger:
    """Tells an oracle what is written.

    Attributes:
        count: how often something was.
    """

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.count = 0

    def wrote(self, written: Sequence[tuple[bytes, ...]]) -> None:
        """One command, or one script, has done this."""
        self.count += 1
        for name, key, *arguments in written:
            if key.startswith(_SESSIONS):
                session, what = key[len(_SESSIONS) : -2].decode(), key[-1:]
                if name == b"XADD" and what == b"c":
                    self._commit(session, arguments[-3], arguments[-1])
                elif name == b"HSET" and what == b"h" and b"born" in arguments and b"epoch" in arguments:
                    self._renewed(session, arguments[arguments.index(b"epoch") + 1].decode())
            elif name == b"RPUSH" and key.startswith(_LOGS):
                self._logs(key, arguments)
            elif name == b"HSET" and key == PREFIX + b"tombstones":
                self._oracle.removed(arguments[0].decode())
            elif name == b"HSET" and key == PREFIX + b"revoked":
                self._oracle.revocation_kept(arguments[0].decode())

    def _commit(self, session: str, place: bytes, record: bytes) -> None:
        made = records.committed(session, place, record)
        numbered = list(enumerate(made.events, made.head + 1))
        self._oracle.committed([Commit(session, made.epoch, made.head, numbered)])

    def _renewed(self, session: str, epoch: str) -> None:
        """A session that may have lost something goes on under another epoch."""
        line = self._oracle.line(session)
        self._oracle.committed([Commit(session, epoch, 0 if line is None else line.state.seq)])

    def _logs(self, key: bytes, values: Sequence[bytes]) -> None:
        length, _, rest = key[len(_LOGS) :].partition(b":")
        session, step = rest[: int(length)].decode(), rest[int(length) + 1 :].decode()
        lines = [(step, _decode_log(value.partition(b" ")[2])) for value in values]
        line = self._oracle.line(session)
        assert line is not None
        self._oracle.committed([Commit(session, line.state.epoch, line.state.seq, logs=lines)])


def states(data: Data) -> dict[str, SessionState]:
    """What *data* has of all sessions."""
    found = {}
    for key in list(data.keys):
        if key.startswith(_SESSIONS) and key.endswith(b":h"):
            session = key[len(_SESSIONS) : -2]
            head = records.fields(data.hgetall(key))
            state = SessionState(session.decode(), head[b"epoch"].decode(), int(head[b"seq"]))
            entities = records.fields(data.hgetall(_SESSIONS + session + b":e"))
            for name, encoded in entities.items():
                kind = name.partition(b":")[0].decode()
                entity = decode_entity(kind, encoded)
                assert entity is not None
                state.put(kind, entity)
            found[state.topic] = state
    return found
