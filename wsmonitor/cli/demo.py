"""``wsmonitor demo``: the whole of it in one command, leaving nothing behind.

A server, a workload that publishes a session, and an observer: JupyterLab on a copy of the first
tutorial, or this terminal. Everything lies in one temporary folder, also what Jupyter would write
to the user's own; the folder and every process are gone when the command ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from .failures import Exit, Failure
from .options import Server, Span

SESSION: Final = "stdlib-analysis"
NOTEBOOK: Final = "01-first-session.ipynb"
_START: Final = 30.0  # seconds for the server to listen
_LAB_START: Final = 90.0  # JupyterLab's first start on a slow disk
_LAB_WORK: Final = 300.0  # seconds that the workload goes on: time to open the notebook and look around
_END: Final = 10.0  # seconds for a process to end by itself


@click.command("demo", short_help="See it work: a server, a real workload, and JupyterLab (or the terminal).")
@click.option("--headless", is_flag=True, help="Show the session in this terminal instead of JupyterLab.")
@click.option("--seconds", type=Span(), default=None, help="End by itself within this time, with status 0.")
@click.option("--no-browser", is_flag=True, help="Only print JupyterLab's address.")
def demo_command(headless: bool, seconds: float | None, no_browser: bool) -> int:
    """See wsmonitor work: it starts a server, a real workload (an analysis of the Python standard
    library's own source) and JupyterLab on a tutorial that watches it.

    Ctrl-C ends all of it. It uses a temporary folder of its own and leaves nothing behind.

    \b
    Examples:
      wsmonitor demo
      wsmonitor demo --headless --seconds 20
    """
    if not headless:
        _needs_lab()
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        demo = stack.enter_context(Demo.prepared())
        demo.start_server()
        if headless:
            demo.start_workload(seconds)
            return demo.show_here(seconds)
        url = demo.start_lab()
        demo.start_workload(seconds or _LAB_WORK)
        return demo.stay(url, seconds, browser=not no_browser and _has_display())


class Demo:
    """The processes of a demo, and the folder they live in."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self._stack = stack
        self.environ = environment(home, os.environ)
        self.workload: subprocess.Popen[str] | None = None
        self.lab: subprocess.Popen[str] | None = None

    @classmethod
    @contextmanager
    def prepared(cls) -> Iterator[Demo]:
        """A demo in a folder of its own; both are gone at the end, whatever happened."""
        with ExitStack() as stack:
            home = Path(tempfile.mkdtemp(prefix="wsmonitor-demo-"))
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            for folder in ("runtime", "notebooks"):
                (home / folder).mkdir(mode=0o700)
            yield cls(home, stack)

    def start_server(self) -> None:
        """Start the server, and wait until it listens."""
        server = self._spawn("server", ["-m", "wsmonitor_server", "--local"], pipe=True)
        assert server.stdout is not None
        # It says one line when it listens, and closes its end when it ends: no need to look again and again.
        line = _line(server, _START)
        if "listens" not in line:
            raise Failure(f"the server did not start: {self.last_words('server') or line}", code="internal")

    def start_workload(self, seconds: float | None) -> None:
        """Start the program that publishes the session."""
        arguments = ["-m", "wsmonitor.demo", "--name", SESSION]
        if seconds is not None:
            # It ends earlier, so that its end is seen; what it does last takes a moment beyond its time.
            arguments += ["--seconds", f"{max(1.0, seconds * 0.8 - 2):g}"]
        self.workload = self._spawn("workload", arguments)

    def start_lab(self) -> str:
        """Start JupyterLab on a copy of the first tutorial, with the others beside it; return its address."""
        from wsmonitor.notebook import tutorials

        tutorials.copy(self.home / "notebooks")
        quiet = self.home / "lab-settings" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        news = {"fetchNews": "false", "checkForUpdates": False}
        (quiet / "notification.jupyterlab-settings").write_text(json.dumps(news), encoding="utf-8")
        arguments = [
            "-m", "jupyterlab", "--no-browser", "--LabApp.extension_manager=readonly",
            f"--ServerApp.root_dir={self.home / 'notebooks'}",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--allow-root")
        self.lab = self._spawn("jupyterlab", arguments)
        deadline = time.monotonic() + _LAB_START
        while time.monotonic() < deadline:
            for file in (self.home / "runtime").glob("jpserver-*.json"):
                found = _json(file)
                if found:
                    return f"{found['url']}lab/tree/{quote(NOTEBOOK)}?token={found['token']}"
            if self.lab.poll() is not None:
                break
            time.sleep(0.1)  # JupyterLab tells nobody when it is ready, but for this file
        raise Failure(f"JupyterLab did not start: {self.last_words('jupyterlab')}", code="internal")

    def stay(self, url: str, seconds: float | None, *, browser: bool) -> int:
        """Keep everything running until the time is up, JupyterLab ends, or Ctrl-C."""
        click.echo(f"\n  JupyterLab   {url}")
        click.echo(f"  the session  {SESSION}, live in the notebook; from another terminal:")
        click.echo(f"               {self.how_to_watch()}")
        click.echo("  Ctrl-C ends the demo and leaves nothing behind.\n")
        if browser:
            webbrowser.open(url)
        assert self.lab is not None
        try:
            status = self.lab.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return Exit.OK
        except KeyboardInterrupt:
            click.echo("\nending the demo …")
            return Exit.OK
        if status:
            raise Failure(f"JupyterLab ended: {self.last_words('jupyterlab')}", code="internal")
        return Exit.OK

    def show_here(self, seconds: float | None) -> int:
        """Watch the session in this terminal until it ends or the time is up."""
        from .feed import Feed
        from .options import console
        from .watch import Conditions, Face, LiveFace, PlainFace, watch

        out = console()
        with ExitStack() as stack:
            # The client looks for the demo's server where its environment says.
            stack.enter_context(_environ(self.environ))
            connection = stack.enter_context(Server(None, None).handle("demo"))
            feed = stack.enter_context(Feed(connection, SESSION))
            face: Face
            if out.is_terminal:
                face = stack.enter_context(LiveFace(feed, out))
            else:
                face = PlainFace(feed, out)
            try:
                watch(feed, face, Conditions.ended(), seconds, over=self._workload_failed)
            except KeyboardInterrupt:
                face.draw(last=True)
        click.echo(f"\nThat was a session. The same in JupyterLab: {called()} demo")
        click.echo(OWN.format(program=called()))
        return Exit.OK

    def how_to_watch(self) -> str:
        """The command that watches the demo's session from another terminal."""
        places = ("WSMONITOR_HOME", "JUPYTER_RUNTIME_DIR")
        return " ".join([*(f"{name}={self.environ[name]}" for name in places), called(), "watch", SESSION])

    def last_words(self, name: str) -> str:
        """The end of a process's output."""
        try:
            text = (self.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-12:])

    def _workload_failed(self) -> None:
        if self.workload is not None and self.workload.poll() not in (None, 0):
            raise Failure(f"the workload ended: {self.last_words('workload')}", code="internal")

    def _spawn(self, name: str, arguments: list[str], *, pipe: bool = False) -> subprocess.Popen[str]:
        """A process of our own Python, in its own OS session: Ctrl-C is ours to hand on."""
        with (self.home / f"{name}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, *arguments],
                cwd=self.home,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._stack.callback(_end, process)
        return process


OWN: Final = """Your own, in three lines:

    import wsmonitor as wm
    with wm.session("my-first") as session, session.chain("work") as chain:
        with chain.step("think"): ...

and in another terminal: {program} watch my-first"""


def called() -> str:
    """What to type for `wsmonitor`: where the shell does not find it, the path by which it was called."""
    path = Path(sys.argv[0])
    if path.name != "wsmonitor" or shutil.which("wsmonitor"):
        return "wsmonitor"
    return shlex.quote(str(path))


def environment(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the demo's processes: the user's, with every folder that is written to in *home*."""
    told = {
        name: value for name, value in environ.items() if name not in ("WSMONITOR_URL", "WSMONITOR_TOKEN")
    }
    told.update(
        WSMONITOR_HOME=str(home / "wsmonitor"),
        WSMONITOR_LOCAL="process",
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
        JUPYTER_CONFIG_DIR=str(home / "jupyter-config"),
        JUPYTER_DATA_DIR=str(home / "jupyter-data"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "lab-settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "lab-workspaces"),
        IPYTHONDIR=str(home / "ipython"),
        NPM_CONFIG_CACHE=str(home / "npm"),  # JupyterLab asks npm, which writes a log
    )
    # What the user installed for himself (`pip install --user`) is still to be found.
    own = environ.get("JUPYTER_DATA_DIR") or _user_data_dir()
    told["JUPYTER_PATH"] = os.pathsep.join(filter(None, (environ.get("JUPYTER_PATH", ""), own)))
    return told


def _user_data_dir() -> str:
    from jupyter_core.paths import jupyter_data_dir

    return str(jupyter_data_dir())


def _needs_lab() -> None:
    missing = [name for name in ("jupyterlab", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(
            f"the demo shows itself in JupyterLab, and {' and '.join(missing)} is not installed here",
            code="configuration",
            hint="pip install 'wsmonitor[lab]', or see it in the terminal: wsmonitor demo --headless",
            status=Exit.USAGE,
        )


def _has_display() -> bool:
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _line(process: subprocess.Popen[str], timeout: float) -> str:
    """The first line that *process* writes; "" when it ends or says nothing for *timeout* seconds."""
    import threading

    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]  # asserted above
    reader.start()
    reader.join(timeout)
    return said[0].strip() if said else ""


def _end(process: subprocess.Popen[str]) -> None:
    """End a process: politely, then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _json(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # it is being written
    return found if isinstance(found, dict) else {}


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with everything put away."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
