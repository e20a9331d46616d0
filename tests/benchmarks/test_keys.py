from pathlib import Path

from benchmarks.certificates import write_certificate
from benchmarks.keys import write_crowd, write_keys
from benchmarks.ours import PlaceOrder, place_orders
from messaging.ambient import real_ambient
from messaging.core.codec import encode_model
from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.topology import Names
from messaging.security.keyfile import load_keyring
from messaging.security.keyring import check_keyring
from messaging.security.seal import Sealer, Unsigned
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


def test_a_sealed_order_takes_the_bytes_that_the_arithmetic_of_scaling_takes(tmp_path: Path) -> None:
    write_keys(tmp_path)
    keyring, ambient = load_keyring(tmp_path / "shop.key"), real_ambient()
    store = TrustStore(keyring, ambient=ambient)
    store.reload(tmp_path / "trust.bundle")
    sealer = Sealer(keyring, store, Names("messaging"), ambient=ambient)

    def prepared(order: PlaceOrder) -> Unsigned:
        now_ms, message_id = ambient.now_ms(), ambient.new_id()
        envelope = Envelope(
            id=message_id,
            kind=Kind.COMMAND,
            name="orders.place_order",
            version=1,
            sender="shop",
            audience="orders",
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + 1_000,
            payload=encode_model(order, CODEC_MSGPACK),
            codec=CODEC_MSGPACK,
            correlation_id=message_id,
        )
        return sealer.prepare(envelope, routing_key="orders.place_order.v1")

    orders = place_orders()
    (alone,) = {len(sealer.sign([prepared(order)])[0]) for order in orders}
    (batched,) = {len(sealed) for sealed in sealer.sign([prepared(order) for order in orders])}

    said = f"its sealed bytes: {alone} alone, {batched // 1000} {batched % 1000:03} in a batch of {len(orders)}"
    assert said in (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def test_a_certificate_comes_with_its_key_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "https.pem"

    write_certificate(path)

    assert b"BEGIN CERTIFICATE" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
