#!/usr/bin/env python3
"""Makes certificates for development: a CA of one's own, one for the broker, one for each client.

    scripts/dev_certs.py .certs --client orders --client users

A second run keeps the CA and renews the rest in place; services read that with their next connection. Keys have mode
0600. A client's common name is its user at the broker. For development only: the CA's key lies beside the rest.
"""

import argparse
import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "main"]

CA_DAYS: Final = 90
DAYS: Final = 14
# Clocks of containers and machines differ.
EARLIER: Final = timedelta(minutes=5)
PUBLIC_MODE: Final = 0o644
PRIVATE_MODE: Final = 0o600


class Issued(NamedTuple):
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


class Authority:
    """A CA that lives in a folder.

    Args:
        folder: Home of everything it writes; made when missing.
        name: Common name of a new one.
    """

    def __init__(self, folder: Path, *, name: str = "messaging development CA") -> None:
        self.folder = folder
        self.certificate_file = folder / "ca.crt"
        key_file = folder / "ca.key"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / ".gitignore", b"*\n", mode=PUBLIC_MODE)
        if key_file.exists() and self.certificate_file.exists():
            key = load_pem_private_key(key_file.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise SystemExit(f"{key_file} was not made by this program: name another folder")
            self._key, self._certificate = key, x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
            if self._certificate.not_valid_after_utc > datetime.now(tz=UTC) + timedelta(days=1):
                return
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _self_signed(self._key, name)
        _write(key_file, _pem(self._key), mode=PRIVATE_MODE)
        _write(self.certificate_file, self._certificate.public_bytes(Encoding.PEM), mode=PUBLIC_MODE)

    def issue_broker(self, file_name: str, hosts: Sequence[str], **times: datetime) -> Issued:
        """Write a certificate for a broker that is reached under these host names and addresses."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._issue(file_name, hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, names, **times)

    def issue_client(self, file_name: str, user: str, **times: datetime) -> Issued:
        """Write a certificate with which a client is this user."""
        return self._issue(file_name, user, ExtendedKeyUsageOID.CLIENT_AUTH, None, **times)

    def _issue(
        self,
        file_name: str,
        common_name: str,
        usage: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(tz=UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - EARLIER)
            .not_valid_after(not_after or now + timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        issued = Issued(self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key")
        _write(issued.key, _pem(key), mode=PRIVATE_MODE)
        _write(
            issued.certificate, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), mode=PUBLIC_MODE
        )
        return issued


def _self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    now = datetime.now(tz=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, mode: int) -> None:
    # Moved into place: whoever reads meanwhile sees the old one or the new one, never half of it; never a wide mode.
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    fresh.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what the command line asks for, and say where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to; made when missing, keeps itself out of git")
    parser.add_argument(
        "--host", action="append", help="name or address of the broker; repeat (localhost, rabbitmq-tls, 127.0.0.1)"
    )
    parser.add_argument("--client", action="append", default=[], help="user of the broker; repeat for several")
    options = parser.parse_args(arguments)
    authority = Authority(options.folder)
    made = [authority.issue_broker("broker", options.host or ["localhost", "rabbitmq-tls", "127.0.0.1"])]
    made += [authority.issue_client(client, client) for client in options.client]
    print(f"CA: {authority.certificate_file}")  # noqa: T201 - a program's own output
    for issued in made:
        print(f"{issued.certificate} {issued.key}, {DAYS} days")  # noqa: T201 - the same


if __name__ == "__main__":
    main()
