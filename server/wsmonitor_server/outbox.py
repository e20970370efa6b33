"""What waits to be sent on one connection. Pure: it holds frames and decides what a slow reader gets.

All frames leave in the order in which they came in, so that a heartbeat which carries a topic's head
follows the events it speaks of. They are counted in three classes:

- *state*: a subscription's live events. Bounded; when the bound is passed, the subscription with
  the most bytes waiting is the victim: its frames are dropped, it is told, and it syncs again.
- *control*: replies, acknowledgements, heartbeats, errors. Never dropped; above the bound the
  connection has to be closed.
- *bulk*: pages of syncs and of large values, and the events that end a sync. The producer of
  these asks `bulk_waiting` first and adds the next only when none waits: one at a time. Those of a
  sync that is given up are dropped.
"""

from __future__ import annotations

from collections import deque


class Lane:
    """A share of the state class, or of the *bulk* class, that can be dropped by itself: a subscription's."""

    __slots__ = ("bulk", "count", "size")

    def __init__(self, *, bulk: bool = False) -> None:
        self.bulk = bulk
        self.count = 0
        self.size = 0


class Outbox:
    """One connection's queue of framed messages.

    Args:
        messages: bound of the state class, in frames.
        size: bound of the state class, in bytes.
        control_messages: bound of the control class, in frames.
        control_size: bound of the control class, in bytes.

    Attributes:
        count: how many frames the last `take` gave.
    """

    __slots__ = (
        "_lanes",
        "_queue",
        "bulk_waiting",
        "control_count",
        "control_messages",
        "control_size",
        "control_waiting",
        "count",
        "messages",
        "size",
        "state_count",
        "state_size",
    )

    def __init__(self, *, messages: int, size: int, control_messages: int, control_size: int) -> None:
        self.messages = messages
        self.size = size
        self.control_messages = control_messages
        self.control_size = control_size
        self.count = 0
        self._queue: deque[tuple[Lane | None, bytes, int]] = deque()
        self._lanes: dict[Lane, None] = {}  # in order, so that the same load always has the same victim
        self.state_count = 0
        self.state_size = 0
        self.control_count = 0
        self.control_waiting = 0
        self.bulk_waiting = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put_state(self, lane: Lane, frames: bytes, count: int = 1) -> bool:
        """Queue live events of *lane*'s subscription: *count* frames, joined, which stay together.

        False: the bound is passed (see `victim`).
        """
        length = len(frames)
        self._queue.append((lane, frames, count))
        if lane.count == 0:
            self._lanes[lane] = None
        lane.count += count
        lane.size += length
        self.state_count += count
        self.state_size += length
        return self.state_count <= self.messages and self.state_size <= self.size

    def put_control(self, frame: bytes) -> bool:
        """Queue a message that must not be lost. False: the bound is passed."""
        self._queue.append((None, frame, 1))
        self.control_count += 1
        self.control_waiting += len(frame)
        return not self.control_overflow

    def put_bulk(self, lane: Lane, frames: bytes, count: int = 1) -> None:
        """Queue a page of *lane*, a bulk one: *count* frames, joined. The caller has seen to it that no other
        waits."""
        self._queue.append((lane, frames, count))
        if lane.count == 0:
            self._lanes[lane] = None
        lane.count += count
        lane.size += len(frames)
        self.bulk_waiting += len(frames)

    @property
    def state_overflow(self) -> bool:
        return self.state_count > self.messages or self.state_size > self.size

    @property
    def control_overflow(self) -> bool:
        return self.control_count > self.control_messages or self.control_waiting > self.control_size

    def victim(self) -> Lane | None:
        """The state lane with the most bytes waiting."""
        return max((one for one in self._lanes if not one.bulk), key=lambda lane: lane.size, default=None)

    def drop(self, lane: Lane) -> int:
        """Forget what waits for *lane*. Returns how many frames that were."""
        dropped = lane.count
        if dropped:
            # Rebuilt, not marked: a reader that never reads must not make dropped frames pile up.
            self._queue = deque(entry for entry in self._queue if entry[0] is not lane)
            if lane.bulk:
                self.bulk_waiting -= lane.size
            else:
                self.state_count -= lane.count
                self.state_size -= lane.size
            lane.count = lane.size = 0
            self._lanes.pop(lane, None)
        return dropped

    def take(self, limit: int) -> list[bytes]:
        """What is to be sent next: a piece, if any waits, and no more than *limit* bytes beyond it."""
        queue = self._queue
        if len(queue) == 1:
            # The usual case, for each observer of each commit.
            _, frame, self.count = queue[0]
            self.clear()
            return [frame]
        frames: list[bytes] = []
        taken = 0
        if self.bulk_waiting + self.control_waiting + self.state_size <= limit:
            # All of it, without the bookkeeping of each piece.
            frames = [entry[1] for entry in queue]
            self.count = (
                self.control_count + self.state_count + sum(lane.count for lane in self._lanes if lane.bulk)
            )
            self.clear()
            return frames
        self.count = 0
        while True:  # not all of it: there is something that has no room any more
            lane, frame, count = queue[0]
            length = len(frame)
            if frames and taken + length > limit:
                break
            queue.popleft()
            taken += length
            self.count += count
            frames.append(frame)
            if lane is None:
                self.control_count -= 1
                self.control_waiting -= length
                continue
            lane.count -= count
            lane.size -= length
            if lane.count == 0:
                self._lanes.pop(lane, None)
            if lane.bulk:
                self.bulk_waiting -= length
            else:
                self.state_count -= count
                self.state_size -= length
        return frames

    def take_control(self) -> list[bytes]:
        """Only what must not be lost, before what waits of sessions; that stays."""
        frames = [frame for lane, frame, _ in self._queue if lane is None]
        self.count = len(frames)
        if frames:
            self._queue = deque(entry for entry in self._queue if entry[0] is not None)
            self.control_count = self.control_waiting = 0
        return frames

    def clear(self) -> None:
        """Forget everything: the connection is over."""
        for lane in self._lanes:
            lane.count = lane.size = 0
        self._lanes.clear()
        self._queue.clear()
        self.state_count = self.state_size = 0
        self.control_count = self.control_waiting = self.bulk_waiting = 0
