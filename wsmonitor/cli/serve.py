"""``wsmonitor serve``: a server in this process."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("serve", short_help="Run a server.")
@click.option("--host", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 for any free one.  [default: 8765]")
@click.option(
    "--store",
    metavar="STORE",
    help="memory, sqlite:PATH, or redis://HOST:PORT, which any number of servers share.  [default: memory]",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the signing key and large values lie.  [default: as the local server's]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file; the command line goes above it.",
)
@click.option("--behind-proxy", is_flag=True, default=None, help="A proxy in front of this server ends TLS.")
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Let tokens travel unencrypted, in a network where nobody else can listen.",
)
@click.option("--tls-cert", metavar="FILE", help="PEM file with the certificate chain.")
@click.option("--tls-key", metavar="FILE", help="PEM file with the certificate's key.")
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    help="Lines for people, or one JSON object per line.  [default: text]",
)
@click.option(
    "--loop",
    type=click.Choice(("asyncio", "uvloop")),
    help="Whose event loop to use; uvloop has to be installed.  [default: asyncio]",
)
@click.option("--verbose", is_flag=True, help="Log more.")  # fmt: skip
def serve_command(config_file: Path | None, data_dir: Path | None, verbose: bool, **given: object) -> int:
    """Run a server until Ctrl-C, SIGTERM or `wsmonitor stop`.

    It listens on this machine only, unless there is TLS or a proxy that ends it; and nobody gets in
    without a token. To get one:

    \b
      wsmonitor token issue --key-file DATA_DIR/key --role observe

    \b
    Examples:
      wsmonitor serve
      wsmonitor serve --store sqlite:/var/lib/wsmonitor/store.sqlite3 --data-dir /var/lib/wsmonitor
      wsmonitor serve --store redis://localhost:6379/0
      wsmonitor serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

    One server per user starts by itself when a program publishes; this command is for the others.
    """
    from wsmonitor_server.config import load
    from wsmonitor_server.process import run

    if data_dir is None and config_file is None:
        from wsmonitor.host import data_dir as local_data_dir

        data_dir = local_data_dir()
    config = load(config_file, {**given, "data_dir": str(data_dir) if data_dir is not None else None})

    def announce(line: str) -> None:
        click.echo(line)
        auth = config.auth
        if not (auth.jwks_file or auth.jwks_url):
            key = auth.key_file or str(Path(config.data_dir) / "key")
            click.echo(f"for a token: wsmonitor token issue --key-file {key} --role observe")
        click.echo("Ctrl-C stops it")

    return run(config, announce, verbose=verbose)
