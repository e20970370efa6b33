"""The deployment of ``server/deploy``, by real processes: two servers on one Redis behind nginx with TLS.

Its own files, changed in nothing but addresses, paths, and how much history is kept. One server after the
other is restarted while programs publish and others watch.
"""

from __future__ import annotations

import http.client
import json
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests import nginx
from tests.faults.server import ServerProcess, environment
from tests.redis_server import RedisServer, free_port, users
from wsmonitor.client import PublicationListener, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.auth import issue

from .test_kill import Owner, reached
from .test_two_servers import Seen

pytestmark = nginx.needed

PATIENCE = 90.0
HISTORY = "history_events = 1000000\nhistory_size = 1000000000\n"
"""So much that nobody who is away for long on a slow machine misses an event: each one is accounted for."""

PROGRAMS = 2
OBSERVERS = 6


class Node(ServerProcess):
    """A server as the container starts it: by ``node.toml`` alone."""

    def __init__(self, folder: Path, config: Path, key: bytes) -> None:
        super().__init__(folder)
        self.key = key
        text = config.read_text(encoding="utf-8").replace("port = 8765", f"port = {self.port}")
        (folder / "node.toml").write_text(text, encoding="utf-8")

    def begin(self) -> None:
        """Start the process, without waiting for it."""
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wsmonitor_server", "--config", str(self.folder / "node.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(),
            )

    def get(self, path: str) -> tuple[int, Any]:
        """The status and body of a page; 0 where nothing listens."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(link):
            try:
                link.request("GET", path)
                answer = link.getresponse()
                return answer.status, json.loads(answer.read())
            except OSError:
                return 0, None


class Deployment:
    """Redis, two servers, and the proxy."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        key, password, port = secrets.token_hex(48).encode(), secrets.token_hex(16), free_port()
        held = folder / "secrets"
        held.mkdir()
        for name, text in (
            ("signing_key", key),
            ("redis_password", f"{password}\n".encode()),
            ("redis_users", users(password).encode()),
        ):
            (held / name).write_bytes(text)
            (held / name).chmod(0o600)
        lines = (nginx.DEPLOY / "redis.conf").read_text(encoding="utf-8").splitlines()
        settings = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
        self.redis = RedisServer(
            folder / "redis",
            *(word for name, value in settings for word in (f"--{name}", *shlex.split(value))),
            "--aclfile",
            str(held / "redis_users"),
            port=port,
        )
        stack.callback(self.redis.close)
        self.redis.start()
        config = folder / "node.toml"
        config.write_text(
            (nginx.DEPLOY / "node.toml")
            .read_text(encoding="utf-8")
            .replace("/run/secrets/", f"{held}/")
            .replace("@redis:6379", f"@127.0.0.1:{port}")
            .replace('host = "0.0.0.0"', 'host = "127.0.0.1"')
            .replace("connections = 20000\n", f"connections = 20000\n{HISTORY}", 1),
            encoding="utf-8",
        )
        self.nodes = [stack.enter_context(Node(folder / f"node{n}", config, key)) for n in (1, 2)]
        self.key = key
        places = {f"node{n}:8765": f"127.0.0.1:{node.port}" for n, node in enumerate(self.nodes, 1)}
        self.place, self.trust = stack.enter_context(
            nginx.serving(folder / "nginx", nginx.DEPLOY / "nginx-nodes.conf", places)
        )

    def link(self, stack: ExitStack, name: str) -> Any:
        """A connection of somebody's own, by way of the proxy."""
        token = issue(
            self.key, sub=name, role="admin", sessions=["*"], issued=int(time.time()), ttl=3600, jti=name
        )
        target = Target(url=f"wss://{self.place}/", token=token, ssl=self.trust)
        made = stack.enter_context(connect(target))
        made.wait_live(PATIENCE)
        return made


def assert_it_drained(node: Node, instance: str) -> None:
    """Its log, as programs read it, says which server it was, and that it ended in order."""
    lines = [json.loads(line) for line in node.words().splitlines()]
    events = [line["event"] for line in lines if line.get("server") == instance]
    assert events.index("listening") < events.index("draining") < events.index("stopped")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Each test leaves it as it was: with everything running."""
    with ExitStack() as stack:
        yield Deployment(tmp_path_factory.mktemp("deployment"), stack)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


class Program(threading.Thread):
    """Publishes steps of one chain, one after the other, until it is told to stop."""

    def __init__(self, publication: Any, name: str) -> None:
        super().__init__(name=name)
        self.publication = publication
        self.written = 0
        self.enough = threading.Event()
        publication.submit(ChainChange(id=name, name=name, state="running"))

    def run(self) -> None:
        while not self.enough.wait(0.005):
            self.publication.submit(StepChange(id=f"{self.name}-{self.written}", chain=self.name, name="n"))
            self.written += 1


def test_one_server_after_the_other_is_restarted_and_nobody_misses_anything(
    deployment: Deployment, stack: ExitStack
) -> None:
    nodes = deployment.nodes
    owners: list[Owner] = [Owner() for _ in range(PROGRAMS)]
    programs = []
    for number, owner in enumerate(owners):
        listener: PublicationListener = owner
        publication = deployment.link(stack, f"p{number}").publication("s~1", f"p{number}", listener)
        if not programs:
            publication.submit(SessionChange(name="s", state="running"))
        programs.append(Program(publication, f"p{number}"))
    seen = [Seen() for _ in range(OBSERVERS)]
    links = [deployment.link(stack, f"o{number}") for number in range(OBSERVERS)]
    watching = [link.subscribe("s~1", one) for link, one in zip(links, seen, strict=True)]
    for one in watching:
        one.wait(lambda sub: sub.phase == "live", PATIENCE)
    begun = [one.position for one in watching]
    for program in programs:
        program.start()
    try:
        for node in nodes:
            reached(lambda: all(one.positions for one in seen), PATIENCE)
            told = [len(one.positions) for one in seen]
            instance = node.get("/healthz")[1]["instance"]
            assert node.stop() == 0, node.words()[-2_000:]
            assert node.get("/readyz")[0] == 0, "it takes nobody any more"
            assert_it_drained(node, instance)
            # By way of the other one, everybody sees what is published meanwhile.
            reached(
                lambda before=told: all(  # type: ignore[misc]  # mypy does not see the default's type
                    len(one.positions) > count for one, count in zip(seen, before, strict=True)
                ),
                PATIENCE,
            )
            node.start()
            reached(lambda one=node: one.get("/readyz")[0] == 200, PATIENCE)  # type: ignore[misc]  # as above
    finally:
        for program in programs:
            program.enough.set()
            program.join()
    total = sum(program.written for program in programs)
    for program, owner in zip(programs, owners, strict=True):
        assert program.publication.flush(PATIENCE)
        assert owner.wrong == []
    for one, found, position in zip(watching, seen, begun, strict=True):
        one.wait(lambda sub: sub.phase == "live" and len(sub.state.steps) == total, PATIENCE)
        assert position is not None
        assert one.position is not None
        assert {epoch for epoch, _ in found.positions} == {position[0]}, "one history"
        seqs = [seq for _, seq in found.positions if seq > position[1]]
        assert seqs == list(range(position[1] + 1, one.position[1] + 1)), "each once, in order, none left out"
        assert (one.counters.mismatches, one.counters.gaps) == (0, 0)
    assert len({one.snapshot().digest for one in watching}) == 1


def test_a_redis_that_stands_still_makes_both_not_ready_and_they_live(deployment: Deployment) -> None:
    for node in deployment.nodes:
        reached(lambda one=node: one.get("/readyz")[0] == 200, PATIENCE)  # type: ignore[misc]  # a default
    deployment.redis.pause()
    try:
        for node in deployment.nodes:
            reached(lambda one=node: one.get("/readyz")[0] == 503, PATIENCE)  # type: ignore[misc]  # a default
            status, body = node.get("/readyz")
            assert (status, body["error"]["code"]) == (503, "store_failed")
            assert body["checks"] == {"running": "ok", "room": "ok", "keys": "ok", "store": "store_failed"}
            assert node.get("/healthz")[0] == 200
    finally:
        deployment.redis.resume()
    for node in deployment.nodes:
        reached(lambda one=node: one.get("/readyz")[0] == 200, PATIENCE)  # type: ignore[misc]  # a default
