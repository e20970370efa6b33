"""Whom a client believes: what TLS is checked against, and when a token may travel unencrypted.

What is trusted is, in this order: what was given in the call (``ssl=``: a context, or a PEM file with the
certificates of an authority of one's own), ``WSMONITOR_CA`` (a PEM file), else what the system trusts (which
OpenSSL's ``SSL_CERT_FILE`` can replace). A file takes the place of the system's authorities, as ``curl
--cacert`` does, and is read again for every attempt, so that it may be exchanged.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wsmonitor.host import is_loopback
from wsmonitor.protocol.errors import ConfigurationError

from .errors import InsecureError

if TYPE_CHECKING:
    from .types import Ssl

ENV_CA: Final = "WSMONITOR_CA"
ENV_INSECURE: Final = "WSMONITOR_INSECURE"

_CLIENT_CERTIFICATE: Final = "a context whose load_cert_chain() was called"

# Of X509_verify_cert_error(3); 18 to 21 and 2 are ways to say that no trusted authority was found.
_EXPIRED, _NOT_YET, _HOST, _ADDRESS = 10, 9, 62, 64
_UNKNOWN: Final = frozenset({2, 18, 19, 20, 21})

# A server's alerts (RFC 8446, 6.2) when it wants a certificate of ours, or does not want the one it got.
_WANTS_CERTIFICATE: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_DISLIKES_CERTIFICATE: Final = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_",
    "ACCESS_DENIED",
)
_VERSIONS: Final = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Trust:
    """What a server's certificate is checked against.

    Attributes:
        context: one that was given; None to make one.
        file: the PEM file with the authorities, in place of the system's; "" for none.
        said: where the file was named, in words.
    """

    context: ssl.SSLContext | None = None
    file: str = ""
    said: str = ""

    def load(self) -> ssl.SSLContext:
        """The context to connect with. May block: it reads the file.

        Raises:
            ConfigurationError: the file cannot be read, or holds no certificate.
        """
        if self.context is not None:
            return self.context
        try:
            made = ssl.create_default_context(cafile=self.file or None)
        except FileNotFoundError as exc:
            raise ConfigurationError(f"{self.said} names {self.file}, and there is no such file") from exc
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            raise ConfigurationError(
                f"{self.said} names {self.file}, which is no PEM file with certificates: {exc}"
            ) from exc
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        return made

    def __str__(self) -> str:
        if self.context is not None:
            return "what the context given as ssl= trusts"
        if self.file:
            return f"{self.file} ({self.said})"
        named = os.environ.get("SSL_CERT_FILE")
        return f"{named} (SSL_CERT_FILE)" if named else "what this system trusts"


def trust_for(url: str, given: Ssl | None, environ: Mapping[str, str]) -> Trust | None:
    """What to check *url* against; None where there is no TLS. Without I/O.

    Raises:
        ConfigurationError: *given* does not fit, or is of no use at this address.
        TypeError: it is something else.
    """
    if urlsplit(url).scheme != "wss":
        if given is not None:
            raise ConfigurationError(no_use(url))
        return None
    if given is None:
        file = environ.get(ENV_CA, "")
        return Trust(file=_absolute(file), said=ENV_CA) if file else Trust()
    check_ssl(given)
    if not isinstance(given, ssl.SSLContext):
        return Trust(file=_absolute(given), said="ssl= or --ca")
    if given.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(
            "the context given as ssl= is a server's: make one with ssl.create_default_context(cafile=...)"
        )
    old = ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    if given.minimum_version < ssl.TLSVersion.TLSv1_2 and given.options & old != old:
        raise ConfigurationError(
            "the context given as ssl= takes TLS below 1.2: set minimum_version = ssl.TLSVersion.TLSv1_2"
        )
    return Trust(given)


def _absolute(path: str | os.PathLike[str]) -> str:
    # A program may change its folder before the file is read.
    return str(Path(path).expanduser().absolute())


def check_ssl(given: object) -> None:
    """Raise `TypeError` unless *given* is what ``ssl=`` takes."""
    if not isinstance(given, ssl.SSLContext | str | os.PathLike):
        raise TypeError(f"ssl must be an ssl.SSLContext or a PEM file's path, not {type(given).__name__}")


def no_use(url: str) -> str:
    """Why ``ssl=`` cannot be right for *url*, an address without TLS; "" for the local server's."""
    where = f"{url} is" if url else "the local server's address is"
    return (
        f"ssl= (--ca) was given, and {where} without TLS: "
        "it is for an address that begins with wss:// (url=, --url, WSMONITOR_URL)"
    )


def refuse_clear_text(url: str, insecure: bool | None, environ: Mapping[str, str]) -> None:
    """Let no token go to *url* where others could read it on the way, unless that was asked for.

    Raises:
        InsecureError: the address is of another machine, without TLS.
    """
    parts = urlsplit(url)
    if parts.scheme == "wss" or is_loopback(parts.hostname or ""):
        return
    if (
        environ.get(ENV_INSECURE, "").strip().lower() in {"1", "true", "yes", "on"}
        if insecure is None
        else insecure
    ):
        return
    raise InsecureError(
        f"{url} is another machine's address without encryption: a token could be read on the way, so "
        f"it was not sent. Use wss:// (the server's side: --tls-cert and --tls-key, or a proxy that ends "
        f"TLS). In a network where nobody else can listen, allow it with insecure=True, --insecure or "
        f"{ENV_INSECURE}=1"
    )


def tls_words(error: BaseException, url: str, trust: Trust | None) -> str:
    """Why no TLS connection to *url* came about, in words with what to do; "" if it was not for TLS."""
    found = _ssl_error(error)
    if found is None or trust is None:
        return ""
    if isinstance(found, ssl.SSLCertVerificationError):
        return _unverified(found, url, trust)
    reason = found.reason or ""
    if reason == "WRONG_VERSION_NUMBER":
        return f"what listens at {url} does not speak TLS: is its address ws://…?"
    if any(word in reason for word in _VERSIONS):
        return f"{url} has no version of TLS in common with this program, which takes 1.2 and later"
    if any(word in reason for word in _WANTS_CERTIFICATE):
        return (
            f"{url} ended the TLS handshake ({reason}): it may want a client certificate; "
            f"give ssl={_CLIENT_CERTIFICATE}"
        )
    if any(word in reason for word in _DISLIKES_CERTIFICATE):
        return (
            f"{url} does not accept the client certificate that it was shown ({reason}): "
            f"give ssl={_CLIENT_CERTIFICATE} with one that it knows"
        )
    return f"no TLS connection to {url}: {found}"


def _unverified(error: ssl.SSLCertVerificationError, url: str, trust: Trust) -> str:
    told = f"the certificate of {url} is not accepted: "
    if error.verify_code in _UNKNOWN:
        advice = (
            "add the certificate of its authority there"
            if trust.context is not None or trust.file
            else f"give the PEM file of its authority with ssl=, --ca or {ENV_CA}"
        )
        return (
            f"{told}its authority is not known ({error.verify_message}). "
            f"It was checked against {trust}; {advice}"
        )
    if error.verify_code in (_HOST, _ADDRESS):
        host = urlsplit(url).hostname
        return (
            f"{told}it is not for {host!r} ({error.verify_message.rstrip('.')}). Use a name or an "
            "address that stands in the certificate (subjectAltName), or have one made for this one"
        )
    if error.verify_code == _EXPIRED:
        return f"{told}it has expired. Whoever runs the server has to renew it"
    if error.verify_code == _NOT_YET:
        return f"{told}it is not valid yet. Is this machine's clock right?"
    return f"{told}{error.verify_message}. It was checked against {trust}"


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error behind *error*: a server's alert may come with the first answer, not in the handshake."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
