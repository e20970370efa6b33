"""``python -m wsmonitor``: the command line, where the ``wsmonitor`` script is not on the path."""

from __future__ import annotations

import sys

from wsmonitor.cli import main

sys.exit(main())
