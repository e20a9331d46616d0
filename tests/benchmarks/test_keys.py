from pathlib import Path

from benchmarks.certificates import write_certificate
from benchmarks.keys import write_keys


def test_keys_are_made_for_everybody_who_takes_part(tmp_path: Path) -> None:
    write_keys(tmp_path, bystanders=2, subscribers=1)

    found = {path.name for path in tmp_path.glob("*.key")}

    assert {"orders.key", "shop.key", "reader0.key", "bystander1.key"} <= found
    assert (tmp_path / "trust.bundle").exists()


def test_a_certificate_comes_with_its_key_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "https.pem"

    write_certificate(path)

    assert b"BEGIN CERTIFICATE" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
