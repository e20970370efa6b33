"""Cells that put out what cells can put out, in awkward ways. Each gives the same whenever it is run."""

# ruff: noqa: E501 - cells in one line each
from __future__ import annotations

from typing import Final

from tests.scale import many

SETUP: Final = """
import asyncio, getpass, io, json, logging, os, subprocess, sys, threading, time, warnings
from IPython.display import *
ip = get_ipython()
class Rich:
    def __init__(self, **forms): self.forms = forms
    def _repr_mimebundle_(self, include=None, exclude=None): return {k.replace('_', '/', 1): v for k, v in self.forms.items()}
class Broken:
    def __repr__(self): raise RuntimeError('no repr')
class Strange(Exception):
    def __str__(self): raise ValueError('no message')
def later(text):
    thread = threading.Thread(target=print, args=(text,)); thread.start(); thread.join()
async def soon(text):
    await asyncio.sleep(0); print(text)
log = logging.getLogger('nasty')
"""

_TEXTS: Final = (
    "''", "'a'", "'\\n'", "'a\\rb'", "'a\\r\\nb'", "'ab\\bc'", "'\\x1b[31mred\\x1b[0m'", "'\\u00e9\\u4e2d\\U0001f600'",
    "'\\x00\\x07'", "'x' * 100_000", "'line\\n' * 5_000", "'<script>alert(1)</script>'", "'\\t|\\t'",
    "'token=abcdefghijkl'", "'100%|####| 5/5 [00:00<00:00, 1.0it/s]'",
)  # fmt: skip

_STREAMS: Final = tuple(
    cell.format(text)
    for text in _TEXTS
    for cell in (
        "print({})",
        "print({}, end='')",
        "print({}, file=sys.stderr)",
        "sys.stdout.write({}); None",
        "print({}, flush=True); print({}, file=sys.stderr, flush=True); print('end')".replace("{}", "{0}"),
        "later({})",
    )
)

_FORMS: Final = tuple(
    cell.format(value)
    for value in (
        "HTML('<b>x</b>')", "Markdown('# x')", "Latex('$x$')", "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
        "Image(data=b'\\x89PNG' * 9, format='png')", "Image(data=b'\\x89PNG' * 90_000, format='png')",
        "JSON({'a': [1, None, 'é']})", "Javascript('1')", "Rich(text_plain='p', application_x='y')",
        "Rich(text_plain='p', text_html='h' * 200_000)", "{'a': 1}", "[1, 2, 3]", "range(10**6)", "Broken()",
        "float('nan')", "b'bytes'", "None", "Ellipsis", "list(range(5000))",
    )
    for cell in ("{}", "display({})", "display({}, display_id='d'); update_display({}, display_id='d')".replace("{}", "{0}"))
)  # fmt: skip

_OTHERS: Final = (
    "1/0", "x = (", "import sys; sys.exit()", "sys.exit(3)", "raise KeyboardInterrupt", "raise Strange", "raise SystemExit('bye')",
    "raise ExceptionGroup('g', [ValueError(1), KeyError(2)])", "def f(): f()\nf()", "assert False, 'é'",
    "warnings.warn('careful')", "log.warning('told')", "log.error('told', stacklevel=1)",

     "!echo shell", "!exit 3", "x = !echo caught\nx",
    "%%bash\necho from bash\necho to err >&2", "%%capture out\nprint('c'); display(1)", "out.show()", "print(out.stdout)",
    "%%writefile /dev/null\nx", "%nothing", "%%nothing\nx", "%pwd;", "%env NASTY_UNSET", "%config InlineBackend", "%who_ls nothing",
    "len?", "len??", "nothing?", "%pinfo len", "%matplotlib --list", "%precision 3", "%xmode Plain\n", "1/0", "%xmode Context\n", "%tb",
    "ip.run_cell('print(1)'); print(2)", "ip.run_cell('1/0'); print(2)", "ip.run_cell('5', store_history=True); 6",
    "ip.showtraceback()", "ip.set_next_input('next'); 1", "ip.ex('print(3)')", "eval('7')", "exec('print(8)')", "1;", "1; 2", "_", "__",
    "print(1); clear_output(); print(2)", "print(1); clear_output(wait=True); print(2)", "print(1); clear_output(wait=True)",
    "h = display('a', display_id=True); h.update('b'); None", "h.update('c')", "update_display('z', display_id='unknown')",
    "display('p', 'q', display_id='same'); update_display('r', display_id='same')", "display({'text/plain': 'raw'}, raw=True)",
    "display({'text/plain': 'raw'}, raw=True, metadata={'a': 1}, transient={'x': 2})", "display()",
    "await soon('a')", "await asyncio.gather(soon('b'), soon('c')); None", "t = asyncio.ensure_future(soon('d')); await t",
    "async def gen():\n    for i in range(3): yield i\n[i async for i in gen()]", "await asyncio.wait_for(asyncio.sleep(9), .01)",
    "old = sys.stdout; sys.stdout = io.StringIO(); print('hidden'); sys.stdout = old", "sys.stdout = sys.stderr; print('swapped'); sys.stdout = old",
    "sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.name", "type(sys.stdout).__name__, type(sys.displayhook).__name__",
    "input.__self__.__class__.__name__", "input('no front-end?')", "getpass.getpass('nobody?')", "type(ip.display_pub).__name__",
    "sys.displayhook(3)", "print('a', end='\\r'); print('b')", "for i in range(100): print(i, end='\\r')", "print(*range(20_000))",
    "for i in range(200): print(i); print(-i, file=sys.stderr)", "print('x' * 1_000_000)",
    f"for i in range({many(1_000)}): display(i)",
    "import ipywidgets; s = ipywidgets.IntSlider(); s.value = 5; s.max", "s.close(); None",
    "[f.__name__ for f in ip.ast_transformers]", "ip.input_transformers_cleanup[0].__class__.__name__",
    "pid = os.fork()\nif pid == 0: os._exit(0)\n_ = os.waitpid(pid, 0)", "import multiprocessing as m\nwith m.get_context('fork').Pool(1) as p: print(p.map(abs, [-1]))",
    "import gc; gc.collect(); None", "threading.current_thread().name", "sys.getrecursionlimit(), sys.gettrace(), sys.getprofile()",
    "import signal; signal.getsignal(signal.SIGTERM) == signal.SIG_DFL", "builtins = __import__('builtins'); builtins.print is print",
    "print.__module__, open.__module__", "asyncio.get_running_loop().__class__.__name__", "# only a comment", "pass", "'last'",
)  # fmt: skip

LATE: Final = {
    "os.write(1, b'fd one\\n')": "fd one",
    "os.write(2, b'fd two\\n')": "fd two",
    "subprocess.run('echo from a process', shell=True)": "from a process",
}
"""Cells whose output passes a pipe, and may arrive after their end: what is to be waited for."""

CELLS: Final = (*_STREAMS, *_FORMS, *_OTHERS)
