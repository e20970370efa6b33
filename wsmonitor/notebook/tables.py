"""An observer's steps and events as pandas DataFrames. pandas is imported on use: it is not a dependency.

Both have their columns, with the same types, also when there is nothing in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from wsmonitor.protocol.errors import UsageError

from .chronicle import EVENT_COLUMNS, Entry, frame_columns
from .snapshot import COLUMNS, SessionSnapshot

if TYPE_CHECKING:
    import pandas as pd

_STEP_TYPES: Final = {"attempt": "int64", "seconds": "float64", "done": "float64", "total": "float64"}
_EVENT_TYPES: Final = {"seq": "Int64", "attempt": "Int64", "replayed": "bool"}
WHAT: Final = ("steps", "events")


def check(what: str) -> None:
    """Whether there can be such a table.

    Raises:
        ImportError: pandas is not installed.
        UsageError: there is no such table.
    """
    _pandas()
    if what not in WHAT:
        raise UsageError(f'to_frame() gives "steps" or "events", not {what!r}')


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as exc:
        raise ImportError("to_frame() needs pandas, which is not installed: pip install pandas") from exc
    return pandas


def _frame(columns: Mapping[str, list[Any]], times: Iterable[str], types: Mapping[str, str]) -> pd.DataFrame:
    pandas = _pandas()
    frame = pandas.DataFrame(
        {name: pandas.Series(values, dtype="object") for name, values in columns.items()}
    )
    for name in times:
        # One resolution whatever is in it: pandas would choose by the values.
        frame[name] = pandas.to_datetime(frame[name], unit="ms", utc=True).astype("datetime64[ns, UTC]")
    return frame.astype(types)


def steps_frame(snapshot: SessionSnapshot) -> pd.DataFrame:
    """The steps, one row per attempt, in the order in which they were made."""
    records = snapshot.records()
    columns = {name: [record[name] for record in records] for name in COLUMNS}
    return _frame(columns, ("started", "ended"), _STEP_TYPES)


def events_frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """The events, one row each, in the order of time."""
    columns = frame_columns(entries)
    assert tuple(columns) == EVENT_COLUMNS
    return _frame(columns, ("time",), _EVENT_TYPES)
