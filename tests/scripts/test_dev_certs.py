"""Certificates for development, as the script writes them."""

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.dev_certs import Authority, main

SCRIPT: Final = Path(__file__).resolve().parents[2] / "scripts" / "dev_certs.py"


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_program_makes_a_ca_a_broker_and_clients(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "certs"), "--client", "orders", "--client", "ops.alice"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "certs"
    assert {path.name for path in folder.iterdir()} == {
        *(".gitignore", "ca.crt", "ca.key", "broker.crt", "broker.key"),
        *("orders.crt", "orders.key", "ops.alice.crt", "ops.alice.key"),
    }
    assert (folder / ".gitignore").read_text() == "*\n"
    for key in folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_client_is_named_by_its_certificate_and_may_be_nothing_else(tmp_path: Path) -> None:
    main([str(tmp_path), "--client", "orders"])

    found = certificate(tmp_path / "orders.crt")
    assert [name.value for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["orders"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    found.verify_directly_issued_by(certificate(tmp_path / "ca.crt"))


def test_a_broker_has_its_names_and_addresses(tmp_path: Path) -> None:
    main([str(tmp_path), "--host", "mq.example", "--host", "127.0.0.1"])

    names = certificate(tmp_path / "broker.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mq.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_they_live_for_days_not_years(tmp_path: Path) -> None:
    main([str(tmp_path)])

    now = datetime.now(tz=UTC)
    assert certificate(tmp_path / "broker.crt").not_valid_after_utc < now + timedelta(days=15)
    assert certificate(tmp_path / "ca.crt").not_valid_after_utc < now + timedelta(days=91)


def test_a_second_run_keeps_the_ca_and_renews_the_rest(tmp_path: Path) -> None:
    main([str(tmp_path), "--client", "orders"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    main([str(tmp_path), "--client", "orders"])

    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before if before[name] == after[name]} == {".gitignore", "ca.crt", "ca.key"}
    key = load_pem_private_key(after["orders.key"], password=None)
    assert key.public_key() == certificate(tmp_path / "orders.crt").public_key()


def test_a_ca_about_to_end_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.dev_certs.CA_DAYS", 0)
    first = Authority(tmp_path).certificate_file.read_bytes()

    assert Authority(tmp_path).certificate_file.read_bytes() != first


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    main([str(tmp_path)])
    (tmp_path / "ca.key").write_text(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
        "-----END PRIVATE KEY-----\n"
    )

    with pytest.raises(SystemExit, match="name another folder"):
        main([str(tmp_path)])
