"""``wsmonitor status``, ``stop`` and ``logs``: the server itself."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from wsmonitor._version import __version__
from wsmonitor.export.words import NANO, age, duration, moment
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR
from wsmonitor.protocol.discovery import Discovery
from wsmonitor.protocol.errors import WsMonitorError

from .failures import Exit, Failure, explain
from .lines import degraded as degraded_line
from .options import Server, emit, json_option, server_options

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.client.locate import Located

_LOOK_EVERY: Final = 0.2  # seconds between two looks at a growing log, or at a process that is ending


@click.command("status", short_help="Tell which server is used, why, and how it is.")
@click.argument("address", required=False, metavar="[URL]")
@json_option
@server_options
def status_command(address: str | None, as_json: bool, server: Server) -> int:
    """Tell which server is used, why this one, where it was looked for, and how it is.

    Status 0 when it answers, 3 when there is none, 4 when it refused your token.

    \b
    Examples:
      wsmonitor status
      wsmonitor status wss://monitor.example.org --json
    """
    from wsmonitor.client.errors import NoServerError, NotLocatedError
    from wsmonitor.client.locate import locate

    if address is not None:
        server = replace(server, url=address)
    report: dict[str, Any] = {
        "client": {"version": __version__, "protocol": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}"},
        "url": None,
        "why": None,
        "looked": [],
        "local": None,
        "connection": None,
        "server": None,
        "directory": None,
        "error": None,
    }
    status: int = Exit.OK
    try:
        located = locate(server.url)
        report.update(url=located.url, why=located.why, looked=list(located.looked), local=_local(located))
        with server.connected("status") as connection:
            _ask(connection, server, report)
    except (NotLocatedError, NoServerError) as exc:
        failure = explain(exc)
        report["looked"] = list(exc.looked)
        report["error"] = {"code": "no_server", "message": failure.message}
        status = Exit.NO_SERVER
    except (Failure, WsMonitorError) as exc:
        failure = explain(exc)
        report["error"] = {"code": failure.code, "message": failure.message}
        status = failure.status
    if as_json:
        emit(report)
    else:
        for line in _lines(report):
            click.echo(line)
    return status


def _local(located: Located) -> dict[str, Any] | None:
    found = located.discovery
    if found is None:
        return None
    return {
        "pid": found.pid,
        "version": found.version,
        "started": found.started,
        "store": found.store,
        "data_dir": found.data_dir,
        "log": found.log,
    }


def _ask(connection: Connection, server: Server, report: dict[str, Any]) -> None:
    """Fill *report* with what the server tells."""
    from .directory import DIRECTORY, verified

    report["server"] = connection.server_status(timeout=server.timeout).result()
    state = verified(connection, DIRECTORY, server.timeout)
    report["directory"] = {"epoch": state.epoch, "seq": state.seq, "sessions": len(state.listings)}
    status = connection.status
    welcome = status.welcome
    assert welcome is not None, "a live connection was welcomed"
    report["connection"] = {
        "rtt": status.rtt,
        "clock_offset": status.clock_offset,
        "subject": welcome.subject,
        "role": welcome.role,
        "sessions": list(welcome.sessions),
        "expires": welcome.expires,
        "heartbeat_interval": welcome.heartbeat_interval,
        "heartbeat_timeout": welcome.heartbeat_timeout,
        "degraded": degraded_line(status),
    }


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    rows: list[tuple[str, str]] = []
    error = report["error"]
    if error is not None:
        rows.append(("status", f"✕ {error['message']} [{error['code']}]"))
    else:
        rows.append(("status", "● it answers"))
    if report["url"]:
        rows.append(("server", f"{report['url']}, {report['why']}"))
    rows += [("looked at" if n == 0 else "", place) for n, place in enumerate(report["looked"])]
    local = report["local"]
    if local is not None:
        since = age((time.time_ns() - int(local["started"])) / NANO)
        rows.append(("process", f"{local['pid']}, for {since}, {local['store']}"))
        rows.append(("log", local["log"]))
    info = report["server"]
    if info is not None:
        rows.append(("version", f"{info.get('version')}, protocol {info.get('protocol')}"))
        rows.append(("up for", duration(float(info.get("uptime", 0.0))) + _draining(info)))
        rows.append(("epoch", str(info.get("epoch"))))
        rows += [
            (key, str(info[key])) for key in ("connections", "subscriptions", "publications") if key in info
        ]
    directory = report["directory"]
    if directory is not None:
        rows.append(("sessions", f"{directory['sessions']:,}, list at event {directory['seq']:,}"))
    connection = report["connection"]
    if connection is not None:
        if (degraded := connection["degraded"]) is not None:
            since = moment(int(degraded["since"]))
            rows.append(("degraded", f"◐ it takes no changes since {since}: {degraded['reason']}"))
        rtt, offset = connection["rtt"], connection["clock_offset"]
        heard = f", {rtt * 1000:.0f} ms" if rtt is not None else ""
        heard += f", clock {offset:+.3f} s" if offset is not None and abs(offset) > 0.05 else ""
        rows.append(("you are", f"{connection['subject']} ({connection['role']}){heard}"))
        rows.append(("you may see", ", ".join(connection["sessions"])))
        rows.append(("until", moment(connection["expires"] * NANO)))
    rows.append(("this program", f"{report['client']['version']}, protocol {report['client']['protocol']}"))
    return [f"{label:<13} {value}" for label, value in rows]


def _draining(info: dict[str, Any]) -> str:
    return ", stopping" if info.get("draining") else ""


@click.command("stop", short_help="Stop the local server.")
@json_option
@server_options
def stop_command(as_json: bool, server: Server) -> int:
    """Stop the local server: it finishes what it acknowledged, tells its clients, and ends.

    Another server is stopped only when it is named by --url, with a token of the role admin. That there
    is no local server to stop is no failure.
    """
    from wsmonitor.client.errors import NotLocatedError
    from wsmonitor.client.locate import locate
    from wsmonitor.protocol.messages import Stop

    if server.url is None and os.environ.get("WSMONITOR_URL"):
        raise Failure(
            "WSMONITOR_URL names a server that is not this user's local one",
            code="configuration",
            hint="to stop that one, name it: wsmonitor stop --url URL",
            status=Exit.USAGE,
        )
    try:
        located = locate(server.url)
    except NotLocatedError as exc:
        if as_json:
            emit({"stopped": None, "looked": list(exc.looked)})
        else:
            click.echo("no local server is running")
        return Exit.OK
    with server.connected("stop") as connection:
        connection.request(lambda request: Stop(request=request), server.timeout).result()
    if located.discovery is not None:
        _await_end(located.discovery, server.timeout)
    if as_json:
        emit({"stopped": located.url, "looked": list(located.looked)})
    else:
        click.echo(f"stopped {located.url}")
    return Exit.OK


def _await_end(discovery: Discovery, timeout: float) -> None:
    from wsmonitor.host import why_stale

    deadline = time.monotonic() + timeout
    while not why_stale(discovery):
        if time.monotonic() >= deadline:
            raise Failure(
                f"the server was told to stop, and process {discovery.pid} still runs after {timeout:g} s",
                code="timeout",
                hint=f"its log: {discovery.log}",
                status=Exit.TIMEOUT,
            )
        # It is not our child: no system call tells its end.
        time.sleep(_LOOK_EVERY)


@click.command("logs", short_help="Show the local server's log.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="The last N lines."
)
def logs_command(follow: bool, lines: int) -> None:
    """Show the end of the local server's log, also when the server has ended."""
    from wsmonitor.host import data_dir, discovery_path, read_discovery

    discovery, _ = read_discovery(discovery_path())
    path = Path(discovery.log) if discovery is not None else data_dir() / "server.log"
    if not path.is_file():
        raise Failure(
            f"there is no log at {path}: no local server has run yet", code="os_error", status=Exit.NO_SERVER
        )
    position = 0
    with path.open("rb") as file:
        for line in _tail(file.read(), lines):
            click.echo(line)
        position = file.tell()
    while follow:
        time.sleep(_LOOK_EVERY)  # a file tells nobody that it has grown
        position = _grown(path, position)


def _tail(data: bytes, lines: int) -> list[str]:
    return data.decode("utf-8", errors="replace").splitlines()[-lines:] if lines else []


def _grown(path: Path, position: int) -> int:
    """Print what was added to *path* since *position*; return where it ends now."""
    try:
        size = path.stat().st_size
        if size == position:
            return position
        with path.open("rb") as file:
            # A shorter file is a new one: the log was rotated.
            file.seek(position if size > position else 0)
            data = file.read()
            end = file.tell()
    except FileNotFoundError:
        return 0  # between two files of a rotation
    click.echo(data.decode("utf-8", errors="replace"), nl=False)
    return end
