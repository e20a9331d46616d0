from pathlib import Path

from benchmarks.certificates import write_certificate
from benchmarks.keys import write_crowd, write_keys
from messaging.ambient import real_ambient
from messaging.security.keyfile import load_keyring
from messaging.security.keyring import check_keyring
from messaging.security.trust import TrustStore


def test_keys_are_made_for_everybody_who_takes_part(tmp_path: Path) -> None:
    write_keys(tmp_path, subscribers=1)

    found = {path.name for path in tmp_path.glob("*.key")}

    assert {"orders.key", "shop.key", "reader0.key"} <= found
    assert (tmp_path / "trust.bundle").exists()


def test_a_bundle_of_many_grows_with_their_number_and_both_services_accept_it(tmp_path: Path) -> None:
    sizes = []
    for bystanders in (10, 20, 40):
        folder = tmp_path / str(bystanders)
        write_crowd(folder, bystanders=bystanders)
        sizes.append((folder / "trust.bundle").stat().st_size)
        for service in ("orders", "shop"):
            keyring = load_keyring(folder / f"{service}.key")
            store = TrustStore(keyring, ambient=real_ambient())
            store.reload(folder / "trust.bundle")
            check_keyring(keyring, store.current)
            assert len(store.current.services) == bystanders + 2

    assert abs((sizes[2] - sizes[1]) - 2 * (sizes[1] - sizes[0])) < 100


def test_a_certificate_comes_with_its_key_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "https.pem"

    write_certificate(path)

    assert b"BEGIN CERTIFICATE" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
