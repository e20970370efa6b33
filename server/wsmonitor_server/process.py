"""A server as a process of its own: signals, log, garbage collection, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from wsmonitor.protocol.errors import ConfigurationError

from . import logs
from .app import Server
from .assembly import make_engine
from .clock import SystemClock
from .config import ServerConfig
from .keys import key_source
from .local import LOG_FILE, AlreadyRunning, LocalHome

_LOG: Final = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_CONFIGURATION: Final = 2
EXIT_ALREADY_RUNNING: Final = 3
"""Another local server holds the data directory; its discovery file is there."""

OWN_FILES: Final = 256
"""Files that the server itself may have open: databases, large values, logs."""

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""With thousands of held connections the collector's default walks them again and again (measured: half
the handshake rate at 9,000)."""


def run(config: ServerConfig, announce: Callable[[str], None], *, verbose: bool = False) -> int:
    """Serve until SIGTERM, SIGINT, a ``stop`` message or, for a local server, idleness.

    Args:
        config: validated.
        announce: gets one line for people when the server listens.
        verbose: whether more is logged. A local server logs to ``server.log``, others to standard error.

    Returns:
        An exit status.

    Raises:
        ConfigurationError: the message says what is wrong with which setting.
    """
    logs.skip_what_is_not_logged()
    if config.local:
        try:
            with LocalHome.open(config) as home:
                logs.configure(Path(home.config.data_dir) / LOG_FILE, verbose=verbose, form=config.log_format)
                return _run(_serve(home.config, announce, home), config)
        except AlreadyRunning as exc:
            announce(str(exc))
            return EXIT_ALREADY_RUNNING
    logs.configure(None, verbose=verbose, form=config.log_format)
    _have_files(config)
    return _run(_serve(config, announce, None), config)


def _run(serving: Coroutine[Any, Any, int], config: ServerConfig) -> int:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if config.loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            serving.close()
            raise ConfigurationError(
                "loop = \"uvloop\": it is not installed here: pip install 'wsmonitor[uvloop]'"
            ) from None
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serving)


def _have_files(config: ServerConfig) -> None:
    """Let this process have as many sockets as the limits say, if the system allows it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    wanted = config.limits.connections + config.limits.handshakes + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        _LOG.warning(
            "the system lets this process have %d files and sockets, fewer than limits.connections needs "
            "(%d): raise the limit (LimitNOFILE, ulimit -n), or lower limits.connections",
            most,
            wanted,
        )


async def _serve(config: ServerConfig, announce: Callable[[str], None], home: LocalHome | None) -> int:
    data_dir = Path(config.data_dir) if config.data_dir else None
    if data_dir is not None and home is None:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"cannot make the data directory {data_dir}: {exc.strerror}") from exc
    clock = SystemClock()
    server = Server(
        config,
        make_engine(config, clock, mark=lambda: server.auth.mark),
        key_source(config.auth, data_dir),
        clock=clock,
        secret=home.secret if home is not None else "",
    )
    logs.identify(server.instance)
    await server.start()
    try:
        with _signals(server, data_dir):
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            if home is not None:
                home.publish(server.url, server.instance)
            announce(f"wsmonitor listens at {server.url}")
            await _until_stopped(server, home)
    finally:
        if home is not None:
            # Before the listener is gone: whoever reads it from now on is better off without.
            home.retract(server.instance)
        await server.drain()
    return EXIT_OK


async def _until_stopped(server: Server, home: LocalHome | None) -> None:
    waiters: list[asyncio.Future[bool]] = [asyncio.ensure_future(server.stop_requested.wait())]
    if home is not None:
        waiters.append(asyncio.ensure_future(_until_idle(server)))
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)


async def _until_idle(server: Server) -> Literal[True]:
    limit = server.timing.idle_exit
    # Whether a command or an upload is pending is asked of the session side, which has no event for it.
    while (left := limit - server.idle_for()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(min(left + 0.01, 60.0))
    _LOG.info("idle for %g s: ending", limit)
    return True


@contextlib.contextmanager
def _signals(server: Server, data_dir: Path | None) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def reload() -> None:
        try:
            server.rotate_keys(key_source(server.config.auth, data_dir))
        except ConfigurationError:
            _LOG.exception("the keys are kept as they were")

    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: server.request_stop,
        signal.SIGINT: server.request_stop,
    }
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = reload
    installed: list[signal.Signals] = []
    for number, handler in handlers.items():
        # Windows' loops have no signal handlers: there, KeyboardInterrupt ends `asyncio.run`.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, handler)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
