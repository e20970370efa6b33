"""The C floor: see ``native/floor.c``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cache import compiled

from .base import Peer

# Topic and stamp stand where the peers that have no protocol of their own look for them.
BODY = '{"topic":"{topic}","m":"{stamp}","type":"event","seq":{number},"p":"{pad}"}'

SCRIPT = f"""\
path /
body {BODY}
event {{body}}
observer.send subscribe {{topic}}
observer.wait welcome
observer.beat 15 beat
"""


class Floor(Peer):
    """Up to *per_send* frames in one ``send()``."""

    def __init__(self, name: str, per_send: int) -> None:
        self.name = name
        self._per_send = per_send

    def available(self) -> str:
        return "" if compiled("floor", "floor.c") else "it needs a C compiler: apt install gcc"

    def command(self, folder: Path) -> list[str]:
        return [str(compiled("floor", "floor.c")), "--per-send", str(self._per_send)]

    def script(self) -> str:
        return SCRIPT


FLOOR = Floor("floor", 1)
FLOOR_TEN = Floor("floor, 10 frames per send", 10)
