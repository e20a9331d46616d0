from benchmarks.ours import SignatureCount, described
from benchmarks.peers.role import Options
from messaging import Settings
from messaging.core.sealed import Sealed
from messaging.security.seal import Sealer, Unsigned
from tests.support.realm import Realm


def sign(realm: Realm, *sizes: int) -> None:
    sealer = realm.sealer("users")
    for size in sizes:
        batch: list[Unsigned] = [
            sealer.prepare(realm.envelope(), routing_key="orders.place_order.v1") for _ in range(size)
        ]
        signed: list[Sealed] = sealer.sign(batch)
        assert len(signed) == size


def test_batches_are_those_of_the_measured_stretch_alone() -> None:
    realm, count = Realm(), SignatureCount()
    options = Options(role="publish", url="amqp://nowhere", queue="q", messages=60, sequential=3, window=100)
    original = Sealer.sign

    with count.counting():
        sign(realm, 5)
        count.at_edge()
        sign(realm, 10, 20, 30)
        count.at_edge()
        sign(realm, 1, 1, 1)
    sign(realm, 2)

    assert (count.signatures, count.messages) == (7, 68)
    assert described(options, Settings.development(), count).endswith(
        "20.0 messages for each signature with 100 in flight"
    )
    assert Sealer.sign is original
