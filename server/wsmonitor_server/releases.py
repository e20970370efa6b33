"""Large values that a session no longer refers to, until the store may forget them. Pure.

A value stays while an event of the kept history still refers to it. So it is not enough to know that
nothing refers to it any more: it matters since which event.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable


class Releases:
    """Values by SHA-256, and since which seqs nothing has referred to each: the last may be taken back.

    Args:
        values: nothing refers to these at *seq*.
    """

    def __init__(self, values: Iterable[str], seq: int) -> None:
        self._seqs = {sha256: [seq] for sha256 in values}

    def add(self, sha256: str, seq: int, *, committed: int) -> None:
        """Event *seq* is the first that does not refer to *sha256*, nor does anything else.

        Args:
            committed: up to this seq nothing is taken back: of what is not behind it, the last is enough.
        """
        seqs = self._seqs.setdefault(sha256, [])
        while len(seqs) > 1 and seqs[1] <= committed:
            del seqs[0]
        seqs.append(seq)

    def due(self, first_kept: int, referred: Container[str]) -> set[str]:
        """What neither an event of the history, which begins with *first_kept*, nor *referred* refers to."""
        return {
            sha256 for sha256, seqs in self._seqs.items() if seqs[-1] < first_kept and sha256 not in referred
        }

    def done(self, released: Collection[str], end: int) -> None:
        """The store has forgotten *released*, by a commit whose last event is *end*."""
        for sha256 in released:
            # What has come and gone behind that is to be released again.
            later = [seq for seq in self._seqs.pop(sha256, ()) if seq > end]
            if later:
                self._seqs[sha256] = later

    def forget(self, released: Iterable[str]) -> None:
        """Somebody else has released these."""
        for sha256 in released:
            self._seqs.pop(sha256, None)

    def undo(self, seq: int) -> None:
        """What was behind *seq* has not been."""
        left = {sha256: [one for one in seqs if one <= seq] for sha256, seqs in self._seqs.items()}
        self._seqs = {sha256: seqs for sha256, seqs in left.items() if seqs}
