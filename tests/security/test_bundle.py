import pytest

from messaging.security.bundle import OPS_GROUP, KeyState
from tests.support.realm import START_MS, Realm


@pytest.fixture
def realm() -> Realm:
    return Realm()


def test_a_key_belongs_to_its_sender_alone(realm: Realm) -> None:
    bundle = realm.stores["orders"].current
    kid = realm.signer("users").kid

    entry = bundle.signing_entry("users", kid)

    assert entry is not None
    assert entry.key.kid == kid
    assert bundle.signing_entry("orders", kid) is None
    assert bundle.signing_entry("nobody", kid) is None


def test_services_and_operators_are_told_apart(realm: Realm) -> None:
    bundle = realm.stores["orders"].current

    assert bundle.services == ("billing", "orders", "users")
    assert bundle.operators == ("ops:alice",)


@pytest.mark.parametrize(
    ("state", "accepted"),
    [("next", True), ("active", True), ("retiring", True), ("retired", False), ("compromised", False)],
)
def test_next_active_and_retiring_keys_are_accepted(state: str, accepted: bool) -> None:
    assert KeyState(state).is_accepted is accepted


@pytest.mark.parametrize("state", ["next", "retiring", "retired"])
def test_only_active_keys_are_used(realm: Realm, state: str) -> None:
    realm.publish(lambda payload: payload["services"]["orders"]["enc"][0].update(state=state))
    realm.publish(lambda payload: payload["services"]["orders"]["sign"][0].update(state=state))
    bundle = realm.stores["users"].current

    assert bundle.active_encryption_keys("orders", now_ms=START_MS) == ()
    assert bundle.active_signing_ids("orders", now_ms=START_MS) == frozenset()
    assert bundle.active_signing_ids("nobody", now_ms=START_MS) == frozenset()


@pytest.mark.parametrize(
    ("first", "last", "used"),
    [(None, None, True), (START_MS, START_MS, True), (START_MS + 1, None, False), (None, START_MS - 1, False)],
)
def test_planned_times_bound_the_use_of_a_key(realm: Realm, first: int | None, last: int | None, used: bool) -> None:
    def plan(payload: dict[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
        for section in ("sign", "enc"):
            payload["services"]["orders"][section][0].update(not_before=first, not_after=last)

    realm.publish(plan)
    bundle = realm.stores["users"].current

    assert bool(bundle.active_encryption_keys("orders", now_ms=START_MS)) is used
    assert bool(bundle.active_signing_ids("orders", now_ms=START_MS)) is used


def test_the_rows_of_a_group_are_for_its_members(realm: Realm) -> None:
    bundle = realm.stores["orders"].current

    assert bundle.is_addressed("orders", "orders")
    assert bundle.is_addressed("ops:alice", OPS_GROUP)
    assert not bundle.is_addressed("orders", OPS_GROUP)
    assert not bundle.is_addressed("orders", "group:nobody")


def test_a_key_must_be_held_until_it_is_retired(realm: Realm) -> None:
    kid = next(iter(realm.keyrings["orders"].decryption))
    before = realm.stores["orders"].current.gives("orders", kid)

    realm.publish(lambda payload: payload["services"]["orders"]["enc"][0].update(state="retired"))

    assert before
    assert not realm.stores["orders"].current.gives("orders", kid)


def test_another_content_is_another_generation(realm: Realm) -> None:
    before = realm.stores["orders"].current

    realm.publish()

    assert realm.stores["orders"].current.generation != before.generation
