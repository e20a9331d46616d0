"""A service that is left behind by a new bundle says so, on proven messages alone."""

from messaging import Context, Service
from messaging.core.topology import routing_key
from messaging.runtime.trust_lag import PATIENCE_S, TrustLag
from messaging.security.seal import Sealer
from tests.support.realm import Realm
from tests.support.shop import PlaceOrder
from tests.support.stage import Stage


def test_it_is_told_after_five_minutes_and_over_when_the_bundle_arrives() -> None:
    realm = Realm()
    version = realm.stores["users"].current.version
    lag = TrustLag(realm.stores["users"], ambient=realm.clock.ambient)

    lag.note(None)
    lag.note(version)
    lag.note(version + 2)
    at_once = lag.problem
    realm.clock.advance(PATIENCE_S - 1)
    lag.note(version + 1)
    in_time = lag.problem
    realm.clock.advance(1)
    late = lag.problem
    realm.publish()
    half = lag.problem
    realm.publish()

    assert (at_once, in_time) == (None, None)
    assert late is not None
    assert f"version {version} is in force here, others have had version {version + 2}" in late
    assert half is not None
    assert lag.problem is None


def test_a_second_lag_has_its_own_five_minutes() -> None:
    realm = Realm()
    version = realm.stores["users"].current.version
    lag = TrustLag(realm.stores["users"], ambient=realm.clock.ambient)
    lag.note(version + 1)
    realm.publish()
    realm.clock.advance(PATIENCE_S)

    lag.note(version + 2)

    assert lag.problem is None


async def test_a_service_that_stays_behind_is_not_ready() -> None:
    orders = Service("orders")
    ran: list[int] = []

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        ran.append(command.number)

    async with Stage(orders) as stage:
        stage.trust.join("users")
        stage.change_bundle(lambda payload: None, only=("users",))
        stores = stage.trust._stores
        behind = stores["users"].current.version > stores["orders"].current.version
        sealer = Sealer(stage.trust._keyrings["users"], stores["users"], stage.names, ambient=stage.clock.ambient)
        envelope = stage.envelope(PlaceOrder(number=1), "users")
        stage.inject("orders", "commands", sealer.seal(envelope, routing_key=routing_key(envelope.name, 1)))
        await stage.settled()
        ready = orders.health.is_ready
        await stage.advance(PATIENCE_S)

        assert (behind, ran, ready) == (True, [1], True)
        assert "others have had version" in orders.health.problems[0]
