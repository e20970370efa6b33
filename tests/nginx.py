"""A real nginx for tests: the deployment's own sites, on loopback, with a certificate made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.redis_server import free_port

DEPLOY: Final = Path(__file__).resolve().parents[1] / "server" / "deploy"
_PROGRAM: Final = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
_READY: Final = 60.0  # seconds

needed = pytest.mark.skipif(_PROGRAM is None, reason="nginx is not installed: apt install nginx-light")


def certificate(folder: Path) -> Path:
    """A certificate for loopback, signed by itself; its key lies beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "monitor.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "monitor.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "monitor.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "monitor.pem"


@contextmanager
def serving(
    folder: Path, site: Path, changes: Mapping[str, str], more: str = ""
) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Run nginx with *site*, changed in nothing but its addresses, and *more* directives.

    Gives where it listens (``host:port``), and what trusts it.

    Args:
        changes: what stands in the site, and what is to stand in its place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trust = ssl.create_default_context(cafile=str(certificate(folder)))
    port = free_port()
    text = site.read_text(encoding="utf-8")
    for before, after in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl; {more}",
        "/etc/ssl/": f"{folder}/",
        **changes,
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{text}\n}}\n",
        encoding="utf-8",
    )
    assert _PROGRAM is not None
    command = [_PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _READY
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.02)
        yield f"127.0.0.1:{port}", trust
    finally:
        process.terminate()
        process.wait(_READY)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
