"""Figures in Prometheus' text form (version 0.0.4). Pure.

What may be served stands in the catalogue, `figures.METRICS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from .figures import METRICS, Metric


class Histogram:
    """How often something took how long.

    Args:
        bounds: upper bounds of the buckets, ascending; one without a bound comes behind them.
    """

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.buckets = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    @classmethod
    def joined(cls, first: Histogram, second: Histogram) -> Histogram:
        """Both together; they have the same bounds."""
        both = cls(first.bounds)
        both.buckets = [one + other for one, other in zip(first.buckets, second.buckets, strict=True)]
        both.total = first.total + second.total
        return both

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.buckets)

    def summary(self) -> dict[str, float]:
        """``count`` and ``sum``, for people."""
        return {"count": self.count, "sum": round(self.total, 6)}


Number = int | float
Value = Number | Histogram | Mapping[str, Number] | Mapping[tuple[str, ...], Number]
"""A metric without labels; or by the value of its label; or by those of its labels."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds for what ought to take milliseconds."""

GROUP_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Bounds for how many go together."""


def render(values: Mapping[str, Value]) -> bytes:
    """*values*, by names of `METRICS`, in Prometheus' text form (version 0.0.4).

    Raises:
        KeyError: a name is not in the catalogue.
    """
    return "".join(line for name in sorted(values) for line in _lines(METRICS[name], values[name])).encode()


def _lines(metric: Metric, value: Value) -> Iterator[str]:
    name = metric.full_name
    yield f"# HELP {name} {_escaped(metric.meaning, quotes=False)}\n# TYPE {name} {metric.kind}\n"
    if isinstance(value, Histogram):
        below = 0
        for bound, count in zip((*value.bounds, "+Inf"), value.buckets, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}\n'
        yield f"{name}_sum {value.total}\n{name}_count {below}\n"
    elif isinstance(value, Mapping):
        for label, number in value.items():
            labels = (label,) if isinstance(label, str) else label
            pairs = zip(metric.labels, labels, strict=True)
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in pairs)
            yield f"{name}{{{inner}}} {number}\n"
    else:
        yield f"{name} {value}\n"


def _escaped(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
