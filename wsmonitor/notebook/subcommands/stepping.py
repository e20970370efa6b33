"""``%%wsmonitor step NAME``: a cell as a step of a session."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.states import TERMINAL

from . import Call, Subcommand

DETAILS: Final = """\
The cell runs as it would without the line, within a step NAME: its end, its error and what it does with
wm.track(...), wm.log(...), wm.metric(...) and wm.current_step() are shown there.

The step belongs to the session that is open around the cell's code; else to the session --session NAME,
which is begun with the first such cell, and goes on with the next. Without --session its name is "notebook".
It ends by   %wsmonitor step --end   as succeeded, with a cell that names another one, or with the kernel.

A cell that awaits at its top cannot be a step in this way: use  async with session.step("NAME"):
"""

OWN: Final = "notebook"

_lock = threading.Lock()
_own: list[Any] = []
"""The session that these cells have begun; none, or one."""


def _step(call: Call) -> None:
    __tracebackhide__ = True
    options, words = call.options("session=", "end")
    body = call.body
    if body is None:
        if words or list(options) != ["end"]:
            raise UsageError("step is for a whole cell: %%wsmonitor step NAME; %wsmonitor step --end")
        _end()
        return
    if len(words) != 1 or "end" in options:
        raise UsageError("which name? %%wsmonitor step NAME, quoted if it has spaces, as the first line")
    run = compiled(call.shell, body)
    session = _session(options.get("session", ""))
    with session.step(words[0], kind="cell", input=body):
        run()


def _end() -> None:
    with _lock:
        if not _own:
            raise UsageError("no session was begun by %%wsmonitor step: there is nothing to end")
        _own.pop().end()


def _session(name: str) -> Any:
    """The session that the cell's step goes into: the open one, else our own, begun if need be."""
    from wsmonitor.publish import current_session
    from wsmonitor.publish import session as begin

    here = current_session()
    if here is not None and not name:
        return here
    with _lock:
        wanted = name or (_own[0].name if _own else OWN)
        if _own and (_own[0].name != wanted or _own[0].state in TERMINAL):
            old = _own.pop()
            if old.state not in TERMINAL:
                old.end()
        if not _own:
            # Another cell of the same session is no newer run of it.
            _own.append(begin(wanted, kind="notebook-steps", supersede=False).start())
        return _own[0]


def compiled(shell: Any, body: str) -> Callable[[], None]:
    """*body* as a cell: its last expression is displayed.

    Raises:
        SyntaxError: as the cell itself would.
        UsageError: it awaits at its top.
    """
    name = shell.compile.cache(shell.transform_cell(body))
    tree = shell.transform_ast(ast.parse(shell.transform_cell(body), name))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    parts: list[CodeType] = [_code(tree, name, "exec")]
    if last is not None:
        parts.append(_code(ast.Interactive([last]), name, "single"))
    if any(part.co_flags & 0x80 for part in parts):  # inspect.CO_COROUTINE
        raise UsageError(
            'a cell that awaits cannot be a %%wsmonitor step: use  async with session.step("NAME"):'
        )

    def run() -> None:
        __tracebackhide__ = True
        for part in parts:
            exec(part, shell.user_global_ns, shell.user_ns)  # noqa: S102 - the user's own cell

    return run


def _code(tree: Any, name: str, mode: str) -> CodeType:
    code = compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    return code


COMMANDS: Final = (
    Subcommand(
        "step",
        "step NAME",
        "this cell as a step of the open session, or of --session NAME",
        _step,
        cell=True,
        details=DETAILS,
    ),
)
