"""How much the generated tests try: the same code with larger numbers under ``python -m tests --all``."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "WSMONITOR_TEST_SCALE"
ALL: Final = 20
"""The scale of ``--all``: so many times the examples, so many runs of each notebook in a row."""

SCALE: Final = int(os.environ.get(VARIABLE, "1"))


def many(examples: int) -> int:
    """*examples* in the everyday run, more of them under ``--all``."""
    return examples * SCALE
