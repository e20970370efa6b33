"""``python -m wsmonitor_server``: a server in this process, as ``wsmonitor serve`` starts it too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsmonitor._version import __version__
from wsmonitor.protocol.errors import ConfigurationError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m wsmonitor_server", description="The wsmonitor server.")
    parser.add_argument("--host", help="address to listen at (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 for any free one (default 8765)")
    stores = "memory, sqlite:PATH, or redis://HOST:PORT (also rediss://, unix://, redis+sentinel://)"
    parser.add_argument("--store", help=stores)
    parser.add_argument("--data-dir", help="where key, database and large values lie")
    parser.add_argument("--config", type=Path, help="TOML file")
    parser.add_argument(
        "--local", action="store_true", default=None, help="be this user's local server on this machine"
    )
    parser.add_argument(
        "--behind-proxy", action="store_true", default=None, help="a proxy in front of this server ends TLS"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="let tokens travel unencrypted, in a network where nobody else can listen",
    )
    parser.add_argument("--tls-cert", help="PEM file with the certificate chain")
    parser.add_argument("--tls-key", help="PEM file with the certificate's key")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="lines for people, or JSON (default text)"
    )
    parser.add_argument(
        "--loop", choices=("asyncio", "uvloop"), help="whose event loop to use (default asyncio)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    parser.add_argument("--version", action="version", version=f"wsmonitor {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve. Returns the exit status: 0, 2 (configuration) or 3 (a local server runs already)."""
    options = vars(parser().parse_args(arguments))
    path, verbose = options.pop("config"), options.pop("verbose")

    from .config import load
    from .process import EXIT_CONFIGURATION, run

    try:
        config = load(path, options)
        return run(config, announce, verbose=verbose)
    except ConfigurationError as exc:
        sys.stderr.write(f"wsmonitor: {exc}\n")
        return EXIT_CONFIGURATION


def announce(line: str) -> None:
    """Tell people."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
