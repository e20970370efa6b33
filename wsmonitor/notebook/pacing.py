"""When something may be sent to a browser, and what. Pure: time is an argument, in seconds.

Jupyter drops messages silently above a rate (1,000 a second, over all that a kernel says), and the
user's own prints with them; where no browser is attached the Jupyter server keeps every message in
memory. So: at most 10 change sets a second, 20 messages a second in the whole process, nothing
when nothing changed but a sign of life, and hardly that where nobody looks.
"""

from __future__ import annotations

from typing import Final, Literal

Action = Literal["frame", "key", "alive", "glance"]

TICK: Final = 0.1
ALIVE: Final = 1.0
KEY_FIRST: Final = 0.3
KEY_EVERY: Final = 3.0
KEY_BYTES_PER_SECOND: Final = 150_000  # a larger key frame comes less often
REPEATS: Final = (10.0, 60.0)  # a key frame may be lost as well: said again after so long without a change
MESSAGES_PER_SECOND: Final = 20.0
BURST: Final = 6.0

UNSEEN: Final = 30.0  # without an acknowledgement, where they are known to come while a cell runs
UNSEEN_UNSURE: Final = 600.0  # where they are not
UNSEEN_BYTES: Final = 12_000_000  # or, before that, when so much was sent for nobody
ASLEEP: Final = 60.0


class Bucket:
    """The messages that a process may still send: a token bucket.

    Args:
        rate: messages within any second, at the most.
        burst: how many of them at once.
    """

    def __init__(self, now: float, rate: float = MESSAGES_PER_SECOND, burst: float = BURST) -> None:
        self._refill = rate - burst
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float, reserve: float = 0.0) -> bool:
        """Use up one message, if there is one besides *reserve*, which is left to what matters more."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._refill)
        self._at = now
        if self._level < 1 + reserve:
            return False
        self._level -= 1
        return True

    def use(self) -> None:
        """Use up one message that must be sent now: later ones wait for it."""
        self._level -= 1


class Pacing:
    """One observer's rhythm.

    Ask `next` what is due, do it, tell it with `sent`; `deadline` says when to ask again.
    """

    def __init__(self, now: float) -> None:
        self.stretch = 1.0  # with many observers each of them speaks less often
        self._dirty = False
        self._urgent = True
        self._unkeyed = True  # frames were sent since the last key frame
        self._frame_at = -1e9
        self._key_at = now - KEY_EVERY
        self._key_wait = KEY_FIRST
        self._any_at = now - ALIVE
        self._repeat = 0
        self._seen_at = now
        self._seen_live = False
        self._unseen = 0  # bytes since the last acknowledgement

    def changed(self) -> None:
        """There is, or may be, something new."""
        self._dirty = True

    def hurry(self) -> None:
        """Send a key frame as soon as possible: somebody asked, or this is the end."""
        self._urgent = True

    def seen(self, now: float, live: bool) -> None:
        """The browser acknowledged; *live*: by a way that works while a cell runs."""
        if self.asleep(now):
            self._urgent = True
        self._seen_at = now
        self._unseen = 0
        self._seen_live = self._seen_live or live

    def spent(self, size: int) -> None:
        """So many bytes were sent."""
        self._unseen += size

    def asleep(self, now: float) -> bool:
        """Whether nobody seems to look."""
        late = now - self._seen_at > (UNSEEN if self._seen_live else UNSEEN_UNSURE)
        return late or self._unseen > UNSEEN_BYTES

    def promise(self, now: float) -> float:
        """Within how many seconds the next message comes."""
        return ASLEEP if self.asleep(now) else ALIVE * self.stretch

    def _times(self, now: float) -> list[tuple[float, Action]]:
        if self.asleep(now):
            # Small, because a server may keep it; the rest is told to who looks again.
            return [(self._any_at + ASLEEP, "glance" if self._dirty else "alive")]
        times: list[tuple[float, Action]] = []
        if self._urgent:
            times.append((now, "key"))
        if self._dirty:
            times.append((self._frame_at + TICK, "frame"))
        if self._unkeyed:
            times.append((self._key_at + self._key_wait, "key"))
        elif self._repeat < len(REPEATS):
            times.append((self._key_at + REPEATS[self._repeat], "key"))
        times.append((self._any_at + ALIVE * self.stretch, "alive"))
        return times

    def next(self, now: float) -> Action | None:
        """What is due at *now*, the most important first: a key frame says all that a frame says."""
        due = {action for at, action in self._times(now) if at <= now}
        for action in ("key", "frame", "glance", "alive"):
            if action in due:
                return action
        return None

    def deadline(self, now: float) -> float:
        """When something is due, if nothing changes before."""
        return min(at for at, _ in self._times(now))

    def sent(self, action: Action, now: float, *, changed: bool = True, size: int = 0) -> None:
        """*action* was done; *changed*: there was something to tell. *size* in bytes, of a key frame."""
        if action == "frame":
            self._dirty = False
            if not changed:
                return
            self._frame_at = now
            self._unkeyed = True
            self._repeat = 0
        elif action == "key":
            if not changed and not self._unkeyed and not self._urgent:
                self._repeat += 1
            elif not changed:
                self._repeat = 0
            self._dirty = self._urgent = self._unkeyed = False
            if changed:
                self._frame_at = now
                self._repeat = 0
            self._key_at = now
            slowest = max(KEY_EVERY, size / KEY_BYTES_PER_SECOND)
            self._key_wait = min(slowest, max(self._key_wait * 2, size / KEY_BYTES_PER_SECOND))
        elif action == "glance":
            self._unkeyed = True
        self._any_at = now
