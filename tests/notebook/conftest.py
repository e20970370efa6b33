"""An IPython shell with the extension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from wsmonitor.notebook.observer import observers


@pytest.fixture
def shell() -> Iterator[Any]:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "wsmonitor")
    yield shell
    shell.run_line_magic("unload_ext", "wsmonitor")
    shell.history_manager.end_session()
    assert observers() == []
