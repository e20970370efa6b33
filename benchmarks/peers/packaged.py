"""Peers that are installed besides: picows, python-socketio, Socket.IO, ws, NATS, Mosquitto."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from . import installing
from .base import Peer
from .floor import BODY, SCRIPT

SOCKETIO_SCRIPT = f"""\
path /socket.io/?EIO=4&transport=websocket
body {BODY}
event 42["publish",{{body}}]
observer.on ^2$ => 3
observer.send 40
observer.wait ^40
observer.send 42["subscribe","{{topic}}"]
observer.wait welcome
publisher.on ^2$ => 3
publisher.send 40
publisher.wait ^40
"""

NATS_SCRIPT = f"""\
path /
binary 1
stream 1
body {BODY}
event PUB t{{topic}} {{size}}\\r\\n{{body}}\\r\\n
observer.on ^PING => PONG\\r\\n
observer.send CONNECT {{"verbose":false,"pedantic":false}}\\r\\nSUB t{{topic}} 1\\r\\nPING\\r\\n
observer.wait PONG
observer.beat 15 PONG\\r\\n
publisher.on ^PING => PONG\\r\\n
publisher.send CONNECT {{"verbose":false,"pedantic":false}}\\r\\nPING\\r\\n
publisher.wait PONG
"""

MQTT_SCRIPT = f"""\
path /mqtt
headers Sec-WebSocket-Protocol: mqtt\\r\\n
binary 1
stream 1
body {BODY}
event \\x30{{varint}}\\x00\\x06t{{topic}}{{body}}
observer.send \\x10\\x12\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x06{{connection}}
observer.wait \\x20\\x02
observer.send \\x82\\x0b\\x00\\x01\\x00\\x06t{{topic}}\\x00
observer.wait \\x90\\x03
observer.beat 15 \\xc0\\x00
publisher.send \\x10\\x12\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x06{{connection}}
publisher.wait \\x20\\x02
"""


class AtPort(Peer):
    """A peer that is told its port, and does not say when it listens there."""

    _port = 0

    def port(self) -> int:
        """A free port, which `listening` then waits for."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        return self._port

    def listening(self, process: subprocess.Popen[str]) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self._port
        raise RuntimeError(f"{self.name} did not start")


class Picows(Peer):
    name = "picows"

    def available(self) -> str:
        return "" if installing.has_module("picows") else installing.HOW

    def command(self, folder: Path) -> list[str]:
        return [str(installing.python()), str(installing.SERVERS / "picows_server.py")]

    def script(self) -> str:
        return SCRIPT

    def storm_script(self) -> str:
        return SCRIPT.replace("subscribe", "snapshot")


class PythonSocketIO(AtPort):
    name = "python-socketio"

    def available(self) -> str:
        return "" if installing.has_module("socketio") else installing.HOW

    def command(self, folder: Path) -> list[str]:
        program = installing.SERVERS / "python_socketio_server.py"
        return [str(installing.python()), str(program), str(self.port())]

    def script(self) -> str:
        return SOCKETIO_SCRIPT

    def storm_script(self) -> str:
        return SOCKETIO_SCRIPT.replace('"subscribe"', '"snapshot"')


class Node(AtPort):
    """A peer on Node.js."""

    def __init__(self, name: str, module: str, program: str, script: str) -> None:
        self.name = name
        self._module = module
        self._program = program
        self._script = script

    def available(self) -> str:
        if shutil.which("node") is None:
            return "it needs Node.js: apt install nodejs npm"
        return "" if (installing.modules() / self._module).is_dir() else installing.HOW

    def command(self, folder: Path) -> list[str]:
        return ["node", str(installing.SERVERS / self._program), str(self.port())]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "NODE_PATH": str(installing.modules())}

    def script(self) -> str:
        return self._script

    def storm_script(self) -> str:
        return self._script.replace("subscribe", "snapshot")


class Nats(AtPort):
    name = "NATS"

    def available(self) -> str:
        return "" if shutil.which("nats-server") else "apt install nats-server"

    def command(self, folder: Path) -> list[str]:
        (folder / "nats.conf").write_text(
            f'host: "127.0.0.1"\nport: -1\n'
            f'websocket {{ host: "127.0.0.1", port: {self.port()}, no_tls: true }}\n'
        )
        return ["nats-server", "-c", str(folder / "nats.conf")]

    def script(self) -> str:
        return NATS_SCRIPT


class Mosquitto(AtPort):
    name = "Mosquitto"

    def available(self) -> str:
        found = shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()
        return "" if found else "apt install mosquitto"

    def command(self, folder: Path) -> list[str]:
        # With a WebSocket listener alone, 2.0.11 says that it has none.
        (folder / "mosquitto.conf").write_text(
            "user root\nset_tcp_nodelay true\nmax_queued_messages 0\nallow_anonymous true\n"
            f"listener {self.port()} 127.0.0.1\nlistener {self.port()} 127.0.0.1\nprotocol websockets\n"
        )
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        return [program, "-c", str(folder / "mosquitto.conf")]

    def script(self) -> str:
        return MQTT_SCRIPT


PACKAGED = (
    Picows(),
    PythonSocketIO(),
    Node("Socket.IO", "socket.io", "socketio_server.js", SOCKETIO_SCRIPT),
    Node("ws", "ws", "ws_server.js", SCRIPT),
    Nats(),
    Mosquitto(),
)
