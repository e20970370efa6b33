"""TLS end to end, with an authority of one's own (ASVS 5.0, 4.4.1 and 12.1 to 12.3)."""

from __future__ import annotations

import socket
import ssl
import warnings
from pathlib import Path

import pytest

import wsmonitor as wm
from wsmonitor.client import connect
from wsmonitor.client.types import ConnectionStatus, Target
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.config import ServerConfig, validate
from wsmonitor_server.embedded import EmbeddedServer

from .certificates import Authority

PATIENCE = 60.0


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this process trusts, as a user would say it."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


def refusal(url: str, token: str) -> ConnectionStatus:
    """The status of a link that does not come about."""
    with connect(Target(url=url, token=token)) as connection:
        return connection.wait_for(lambda status: bool(status.reason) or status.phase == "live", PATIENCE)


def test_a_session_goes_over_wss(authority: Authority) -> None:
    """Published and watched, at ``127.0.0.1``, which stands in the certificate."""
    cert, key = authority.certificate("127.0.0.1")
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        with wm.session("s", url=server.url, token=server.token()) as session, session.step("work") as step:
            step.output = 42
        observer = wm.watch(session.id, url=server.url, token=server.token())
        [found] = observer.wait(timeout=PATIENCE).steps.values()
        assert found.output is not None
        assert found.output.text == "42"
        observer.close()


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    """ASVS 12.3.2: the authority is trusted, the name is not the server's."""
    cert, key = authority.certificate("monitor.example.org")
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        status = refusal(server.url, server.token())
        assert status.phase != "live"
        assert "certificate" in status.reason
        assert server.call(lambda running: running.counters["opened_total"]) == 0


def test_an_unknown_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """ASVS 12.3.2: nothing is trusted because it is there."""
    (tmp_path / "other").mkdir()
    cert, key = Authority(tmp_path / "other", "another").certificate("127.0.0.1")
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        assert "certificate" in refusal(server.url, server.token()).reason


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    """ASVS 12.3.2."""
    cert, key = authority.certificate("127.0.0.1", hours=-24)
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        assert "expired" in refusal(server.url, server.token()).reason


def test_clear_text_at_a_tls_port_is_told_so(authority: Authority) -> None:
    """And the token, which went out in clear text, is in no message."""
    cert, key = authority.certificate("127.0.0.1")
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        token = server.token()
        status = refusal(server.url.replace("wss://", "ws://"), token)
        assert "wss://" in status.reason
        assert token not in f"{status}"


def test_tls_at_a_clear_text_port_is_told_so() -> None:
    """The other way round."""
    with EmbeddedServer.in_thread() as server:
        status = refusal(server.url.replace("ws://", "wss://"), server.token())
        assert "does not speak TLS" in status.reason


def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    """ASVS 12.1.1: 1.2 is the least."""
    cert, key = authority.certificate("127.0.0.1")
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        for most, accepted in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = ssl.create_default_context(cafile=str(authority.file))
            context.set_ciphers("DEFAULT@SECLEVEL=0")  # else this side would refuse by itself
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = most
            assert spoken(context, server.port) is accepted


def spoken(context: ssl.SSLContext, port: int) -> bool:
    """Whether a TLS handshake succeeds."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                return True
        except (ssl.SSLError, OSError):
            return False


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "monitor.example.org", ""])
def test_clear_text_off_the_machine_has_to_be_asked_for(host: str) -> None:
    """ASVS 4.4.1: without a certificate, and without a word of a proxy that has one, it does not listen."""
    with pytest.raises(ConfigurationError, match="clear text"):
        validate(ServerConfig(host=host))
    validate(ServerConfig(host=host, behind_proxy=True))
    validate(ServerConfig(host=host, tls_cert="cert.pem", tls_key="key.pem"))
