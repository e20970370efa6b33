"""A session as a file, and how a session is put into words and rows.

Pure: a state comes in, text goes out. No clock, no link: the caller says when and from where.

========= ==========================================================
module    holds
========= ==========================================================
words     durations, sizes, times, and the icon and word of each state
outline   a state as rows: the tree of chains and steps, attempts joined
document  the JSON form
page      the HTML form: one file that stands alone
recording a recorded notebook: which cells ran, with what
matching  which recorded cell belongs to which cell of a notebook
outputs   a recorded cell's outputs as a value: collected from messages, written, read
cells     a recorded cell's outputs, as a notebook holds them
notebook  the form of a notebook file
========= ==========================================================

The terminal view of the command line, its ``export`` command and the notebook's
``Observer.to_html`` stand on these.
"""

from __future__ import annotations

from .document import Origin, from_json, to_json
from .page import to_html

__all__ = ["Origin", "from_json", "to_html", "to_json"]
