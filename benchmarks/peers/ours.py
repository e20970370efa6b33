"""wsmonitor's server with everything on: JWT, expiry, scopes, digests, outboxes, heartbeats, limits.

Raised are only the limits that a benchmark's publisher, which stands for many, would run into.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from wsmonitor.client.tokens import issue_token
from wsmonitor.protocol.access import Role

from .base import Peer

_PRODUCER = '"session":"bench~{topic}","producer":"p"'

# A session of about 100 KB: 128 further steps.
_PUBLISH = f'"type":"publish",{_PRODUCER},"producer_epoch":1'
_MORE = ",".join(
    f'{{"op":"step","id":"more {n}","chain":"c","name":"s","state":"running","reason":"{600 * "x"}"}}'
    for n in range(128)
)

CONFIG = """\
[limits]
message_rate = 1e6
message_burst = 1000000
publications = 20000
"""

BODY = (
    '{"type":"publish","session":"bench~{topic}","producer":"p","producer_epoch":1,"first":{number},"changes":'
    '[{"op":"step","id":"s","attributes":{"m":"{stamp}","p":"{pad}"}}]}'
)

_FIRST = ",".join(
    (
        '{"op":"session","name":"bench","state":"running"}',
        '{"op":"chain","id":"c","name":"c","state":"running"}',
        '{"op":"step","id":"s","chain":"c","name":"s","state":"running"}',
    )
)
_NEXT = '{"type":"sync_next","topic":"bench~{topic}","generation":1,"page":{page}}'
_BEAT = '{"type":"heartbeat","n":{beat},"time":"{wall}"}'
_BEAT_BACK = '{"type":"heartbeat_ack","n":{n},"time":"{wall}"}'

SCRIPT = "\n".join(
    (
        "path /",
        r"headers Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: wsmonitor.v1\r\n",
        f"body {BODY}",
        "event {body}",
        f'array {{{_PUBLISH},"first":{{number}},"changes":[{{changes}}]}}',
        'change {"op":"step","id":"s","attributes":{"m":"{n}","p":"{pad}"}}',
        'accepted "accepted":',
        'bad "type":"resync"',
        "offset 3",
        'observer.send {"type":"hello","major":1,"name":"o{connection}","instance":"i{connection}"}',
        'observer.send {"type":"subscribe","topic":"bench~{topic}","generation":1}',
        f'observer.on "type":"sync_begin" => {_NEXT}',
        f'observer.on "type":"sync_page" ! "last":true => {_NEXT}',
        f'observer.on "type":"heartbeat" => {_BEAT_BACK}',
        'observer.wait "type":"synced"',
        f"observer.beat 15 {_BEAT}",
        'publisher.send {"type":"hello","major":1}',
        'publisher.wait "type":"welcome"',
        f'publisher.each {{"type":"publish_open","request":1,{_PRODUCER},"agent":"bench","holder":"1"}}',
        'publisher.wait_each "type":"publish_opened"',
        f'publisher.each {{{_PUBLISH},"first":1,"changes":[{_FIRST}]}}',
        'publisher.wait_each "type":"ack"',
        f'publisher.on "type":"heartbeat" => {_BEAT_BACK}',
        f"publisher.beat 15 {_BEAT}",
        "",
    )
)


class Ours(Peer):
    """With *store*: ``memory`` or ``sqlite``; on the event loop *loop*."""

    def __init__(self, name: str, store: str, loop: str = "asyncio") -> None:
        self.name = name
        self._store = store
        self._loop = loop

    def available(self) -> str:
        if self._loop == "uvloop" and find_spec("uvloop") is None:
            return "pip install uvloop"
        return ""

    def command(self, folder: Path) -> list[str]:
        config = folder / "config.toml"
        config.write_text(CONFIG, "utf-8")
        store = "memory" if self._store == "memory" else f"sqlite:{folder}/store.sqlite3"
        where = ["--config", str(config), "--data-dir", str(folder)]
        how = ["--store", store, "--loop", self._loop, *where]
        return [sys.executable, "-m", "wsmonitor_server", "--port", "0", *how]

    def script(self) -> str:
        return SCRIPT

    def storm_script(self) -> str:
        more = f'publisher.each {{{_PUBLISH},"first":4,"changes":[{_MORE}]}}'
        return f'{SCRIPT}{more}\npublisher.wait "type":"ack"\n'

    def tokens(self, folder: Path, clients: int) -> Sequence[str]:
        def token(number: int, role: Role) -> str:
            return issue_token(
                folder / "key", sub=f"user {number}", role=role, sessions=("bench~*",), ttl=3600
            )

        # The generator's connections take them in turn, the publisher, too: so each may publish.
        return [token(number, "publish") for number in range(clients)]


OURS = Ours("wsmonitor", "memory")
OURS_UVLOOP = Ours("wsmonitor, uvloop", "memory", "uvloop")
OURS_SQLITE = Ours("wsmonitor, SQLite", "sqlite")
