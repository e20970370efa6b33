"""Programs with the publisher's SDK, and the process that delivers what a killed one has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsmonitor import publish
from wsmonitor.client.publishing import Publication
from wsmonitor.client.spoolfile import SpoolFile
from wsmonitor.client.types import PublicationListener
from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.publish import registry
from wsmonitor.publish.run import Runtime

from .actors import URL, Client, Publisher


class Flusher(Client):
    """``wsmonitor spool flush``: delivers what a dead process has left on its disk, as that process.

    Attributes:
        path: the file.
        wanted: what is in it, and has to be there in the end.
        result: "" until it is done; "delivered", "fenced" or "refused".
        rejections: what the server refused, finally.
    """

    def __init__(self, *args: Any, path: Path, dead: Publisher, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path = path
        self.dead = dead
        self.wanted: list[tuple[str, str, float]] = []
        self.lineage = self.oracle.lineage
        self.result = ""
        self.rejections: list[ErrorInfo] = []
        self._publication: Publication | None = None

    def begin(self) -> None:
        """Take the file over, and deliver."""
        file = SpoolFile.take(self.path)
        self._publication = self.connection.publish_kept(file, _FlushListener(self))
        self._look()

    def _look(self) -> None:
        publication = self._publication
        assert publication is not None
        if publication.stage in ("fenced", "refused"):
            self.result = publication.stage
        elif publication.unacknowledged == 0:
            self.result = "delivered"
        else:
            self.process.loop.call_later(0.5, self._look)
            return
        self.oracle.counts[f"spools {self.result}"] += 1
        publication.leave_kept(ended=False)
        self.connection.close(0)


class _FlushListener(PublicationListener):
    def __init__(self, owner: Flusher) -> None:
        self._owner = owner

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self._owner.rejections.append(error)


class Program(Client):
    """A user's program with the publisher's SDK: `wsmonitor.publish` as it is.

    Attributes:
        session: of the SDK; None before `begin`.
        said: for each step what the program last said: its state, its progress and its metric.
        texts: the log lines that it wrote.
        done: commands that its handler has executed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session: Any = None
        self.said: dict[str, tuple[str, float | None, float | None]] = {}
        self.texts: list[str] = []
        self.lineage = 0  # of the disk, when it began
        self._chain: Any = None
        self._running: list[Any] = []

    def begin(self) -> None:
        """Begin a session."""
        self.lineage = self.oracle.lineage
        self.session = publish.session(
            "session-of-a-program",
            url=URL,
            token="unused",
            redact=False,
            threads=False,
            supersede=False,
            strict=False,
            runtime=Runtime(
                connect=lambda target: self.connection,
                monotonic=self.process.monotonic,
                wall_ns=self.process.wall_ns,
                random_bits=self.random.getrandbits,
                agent=lambda: self.name,
            ),
        )
        self.session.start()
        self._chain = self.session.chain("work").start()

    @property
    def open(self) -> bool:
        """Whether it has begun, and not ended."""
        return self.session is not None and self.session.state == "running"

    def work(self) -> None:
        """One thing that a program does."""
        if not self.open:
            return
        chance = self.random.random()
        if not self._running or (chance < 0.3 and len(self.said) < 40):
            step = self._chain.step(f"step {len(self.said) + 1}").start()
            self._running.append(step)
            self.said[step.id] = ("running", None, None)
            return
        step = self.random.choice(self._running)
        state, progress, metric = self.said[step.id]
        if chance < 0.6:
            progress = float(self.random.randrange(100))
            step.progress(progress, 100)
        elif chance < 0.8:
            text = f"line {len(self.texts) + 1} of {self.name}"
            step.log(text)
            self.texts.append(text)
        elif chance < 0.9:
            metric = self.random.random()
            step.metric("loss", metric)
        else:
            self._running.remove(step)
            state = self.random.choice(("succeeded", "failed"))
            step.end() if state == "succeeded" else step.fail("it did not work")
        self.said[step.id] = (state, progress, metric)

    def finish(self) -> None:
        """End the session."""
        if self.open:
            for step in self._running:
                step.end()
                self.said[step.id] = ("succeeded", *self.said[step.id][1:])
            self._running.clear()
            self.session.end()

    def kill(self) -> None:
        super().kill()
        self.forget()

    def close(self) -> None:
        """End as a program does: the SDK closes the connection when all is confirmed."""
        if self.open:
            self.do(self.finish)
        else:
            super().close()

    def forget(self) -> None:
        """What the SDK keeps of its sessions for the end of the real process is not for this one."""
        if self.session is not None:
            registry.discard(self.session)
            registry._closed(self.session._run.channel)
