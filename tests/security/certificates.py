"""Certificates of an authority of one's own."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates for names and addresses.

    Attributes:
        file: its own certificate, PEM: what clients are given to trust.
    """

    def __init__(self, folder: Path, name: str = "an authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        built = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        signed = built.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, hours: int = 24, since: int = -48
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(hours=since))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def certificate(
        self, host: str, *, hours: int = 24, since: int = -48, client: bool = False
    ) -> tuple[str, str]:
        """Files with a certificate for *host* (a name or an address), and with its key.

        It is valid from *since* to *hours*, counted from now.

        *client*: for somebody who shows it to a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            named = x509.DNSName(host)
        usages = x509.ExtendedKeyUsageOID
        usage = usages.CLIENT_AUTH if client else usages.SERVER_AUTH
        signed = (
            self._builder(_name(host), key.public_key(), hours, since)
            .add_extension(x509.SubjectAlternativeName([named]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return self._written(host, signed, key)

    @classmethod
    def self_signed(cls, folder: Path, host: str) -> tuple[str, str]:
        """Files with a certificate for the address *host* that only itself has signed, and with its key."""
        self = cls(folder, host)
        self._name = _name(host)
        named = x509.IPAddress(ipaddress.ip_address(host))
        signed = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.SubjectAlternativeName([named]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return self._written(f"{host}-itself", signed, self._key)

    def _written(
        self, name: str, signed: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> tuple[str, str]:
        cert, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret.touch(0o600)
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert), str(secret)
