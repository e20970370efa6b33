"""The public namespace: complete, lazy, and documented."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import wsmonitor as wm


def test_every_exported_name_is_there() -> None:
    for name in wm.__all__:
        assert getattr(wm, name) is not None
    assert len(set(wm.__all__)) == len(wm.__all__)


def test_the_lazy_names_are_exactly_the_exported_ones() -> None:
    assert {*wm._HOME_OF, "__version__"} == set(wm.__all__)
    assert set(wm.__all__) <= set(dir(wm))


def test_names_of_one_home_are_that_home_s() -> None:
    for home, names in wm._HOMES.items():
        module = importlib.import_module(home, "wsmonitor")
        for name in names:
            assert getattr(wm, name) is getattr(module, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        wm.sesion  # noqa: B018


def test_every_public_thing_has_a_docstring() -> None:
    bare = [name for name in wm.__all__ if name != "__version__" and not getattr(wm, name).__doc__]
    assert bare == []


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, wsmonitor\n"
        "heavy = {'ipywidgets', 'anywidget', 'IPython', 'websockets', 'jwt', 'rich', 'asyncio', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_publishing_names_load_no_notebook_parts() -> None:
    code = (
        "import sys, wsmonitor as wm\n"
        "wm.session, wm.step, wm.Cancelled\n"
        "heavy = {'ipywidgets', 'anywidget', 'IPython', 'websockets', 'jwt', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
