"""``wsmonitor token``: issue, inspect and revoke tokens."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from wsmonitor.export.document import full
from wsmonitor.export.words import NANO, age, moment
from wsmonitor.protocol.access import ROLES

from .failures import Exit, Failure
from .options import Server, Span, emit, json_option, server_options

_KEY = click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The server's signing key.  [default: the local server's]",
)  # fmt: skip


@click.group("token", short_help="Issue, inspect and revoke tokens.")
def token_command() -> None:
    """Tokens say who somebody is, what he may do (his role), with which sessions, and until when.

    \b
    Roles:
      observe   watch
      command   watch, and send commands
      publish   watch, and publish sessions
      admin     everything, also remove sessions, revoke tokens and stop the server
    """


@token_command.command("issue", short_help="Make a token.")
@click.option("--subject", "-s", metavar="NAME", help="Whom it is for.  [default: you]")
@click.option(
    "--role", type=click.Choice(tuple(ROLES)), default="observe", show_default=True, help="What it permits."
)
@click.option(
    "--session", "sessions", multiple=True, metavar="PATTERN",
    help="Session ids that it covers; * stands for anything, e.g. 'nightly-*' (repeatable).  [default: *]",
)  # fmt: skip
@click.option("--ttl", type=Span(), default=43_200.0, show_default="12h", help="How long it is valid.")
@click.option("--name", default="", metavar="TEXT", help="What others see in the list of watchers.")
@click.option(
    "--tenant", default="", metavar="NAME", help="Who shares the server, and has limits of his own there."
)
@_KEY
@json_option
def issue_command(
    subject: str | None,
    role: str,
    sessions: tuple[str, ...],
    ttl: float,
    name: str,
    tenant: str,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Print a new token, and nothing else, on standard output.

    \b
    Examples:
      wsmonitor token issue --subject bob --session 'nightly-*' --ttl 8h
      export WSMONITOR_TOKEN=$(wsmonitor token issue --role command)
    """
    from wsmonitor.client.tokens import inspect_token, issue_token

    whom = subject or getpass.getuser()
    key = key_file or local_key()
    made = issue_token(
        key, sub=whom, role=role, sessions=sessions or ("*",), ttl=ttl, name=name, tenant=tenant
    )
    if as_json:
        emit({"token": made, "claims": full(inspect_token(made).claims)})
    else:
        click.echo(made)


@token_command.command("inspect", short_help="Tell what a token says.")
@click.argument("token", required=False, metavar="[TOKEN]", envvar="WSMONITOR_TOKEN")
@_KEY
@json_option
def inspect_command(token: str | None, key_file: Path | None, as_json: bool) -> int:
    """Tell what TOKEN says, and whether it would be taken. Without one, or with -, it is read from
    WSMONITOR_TOKEN or standard input. The token itself is never printed.

    Status 0 when nothing is known against it, else 1. The signature is checked when the key is here.
    """
    from wsmonitor.client.tokens import inspect_token

    if not token or token == "-":  # noqa: S105 - the usual word for standard input
        token = sys.stdin.read().strip()
    if not token:
        raise click.UsageError("give a token, or pipe one in")
    info = inspect_token(token, key_file or _local_key_if_any())
    claims = info.claims
    if as_json:
        emit({"claims": full(claims), "verified": info.verified, "problem": info.problem,
              "expires_in": round(info.expires_in, 3)})  # fmt: skip
        return Exit.FAILED if info.problem else Exit.OK
    verdict = {True: "good", False: "not this key's", None: "not checked: give --key-file"}[info.verified]
    left = age(info.expires_in) if info.expires_in > 0 else "expired"
    rows = [
        ("subject", claims.sub),
        ("name", claims.name),
        ("role", f"{claims.role}: may {', '.join(sorted(ROLES[claims.role]))}"),
        ("tenant", claims.tenant),
        ("sessions", ", ".join(claims.sessions) or "none"),
        ("expires", f"{moment(claims.exp * NANO)} ({'in ' if info.expires_in > 0 else ''}{left})"),
        ("id", claims.jti),
        ("issuer", claims.iss),
        ("signature", verdict),
        ("verdict", info.problem or "nothing is known against it; whether it was revoked, the server knows"),
    ]
    for label, value in rows:
        if value:
            click.echo(f"{label:<10} {value}")
    return Exit.FAILED if info.problem else Exit.OK


@token_command.command("revoke", short_help="Revoke a token on the server.")
@click.argument("revoked", required=False, metavar="[TOKEN]")
@click.option("--id", "jti", default="", metavar="ID", help="The token's id, instead of the token itself.")
@json_option
@server_options
def revoke_command(revoked: str | None, jti: str, as_json: bool, server: Server) -> None:
    """Revoke TOKEN (- reads it from standard input): within a second its connections are closed.

    Your own token has to have the role admin. It holds until the token would have expired anyway.
    """
    from wsmonitor.client.tokens import inspect_token
    from wsmonitor.protocol.messages import Revoke

    if bool(revoked) == bool(jti):
        raise click.UsageError("give a token (- for standard input), or --id")
    expires = 0
    if revoked:
        claims = inspect_token(sys.stdin.read().strip() if revoked == "-" else revoked).claims
        jti, expires = claims.jti, claims.exp
    with server.connected("token") as connection:
        connection.request(
            lambda request: Revoke(request=request, jti=jti, expires=expires), server.timeout
        ).result()
    if as_json:
        emit({"revoked": jti})
    else:
        click.echo(f"revoked {jti}")


def local_key() -> Path:
    """The local server's key file.

    Raises:
        Failure: there is none here.
    """
    found = _local_key_if_any()
    if found is None:
        raise Failure(
            "there is no signing key here: no local server has run yet",
            code="configuration",
            hint="name the server's key: --key-file FILE (wsmonitor serve prints it)",
            status=Exit.USAGE,
        )
    return found


def _local_key_if_any() -> Path | None:
    from wsmonitor.host import data_dir, discovery_path, read_discovery

    discovery, _ = read_discovery(discovery_path())
    key = Path(discovery.key_file) if discovery is not None else data_dir() / "key"
    return key if key.is_file() else None
