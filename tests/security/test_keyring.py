import pickle
from dataclasses import replace

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.keyring import Keyring, check_keyring
from messaging.security.keys import DecryptionKey, SigningKey
from tests.support.realm import Realm

ROOT = SigningKey.generate("test")


def keyring(service: str = "orders", realm: str = "test") -> Keyring:
    return Keyring.generate(service, realm=realm, roots=(ROOT.public,))


def test_a_fresh_keyring_has_one_key_of_each_sort() -> None:
    made = keyring()

    assert len(made.signing) == len(made.decryption) == 1
    assert made.signing[0].kid != keyring().signing[0].kid
    assert not made.is_operator
    assert not made.is_development


def test_operators_and_development_realms_are_told_by_their_names() -> None:
    assert keyring("ops:alice").is_operator
    assert keyring(realm="dev-1").is_development


def test_keys_are_found_by_recipient_and_id() -> None:
    group_key = DecryptionKey.generate("test")
    made = keyring("ops:alice").with_group(OPS_GROUP, (group_key,))
    own = next(iter(made.decryption.values()))

    assert made.decryption_key("ops:alice", own.kid) is own
    assert made.decryption_key(OPS_GROUP, group_key.kid) is group_key
    assert made.decryption_key("ops:alice", group_key.kid) is None
    assert made.decryption_key("group:other", group_key.kid) is None


def test_a_keyring_shows_no_key_and_is_not_pickled() -> None:
    made = keyring()

    assert repr(made) == "Keyring('orders', realm='test')"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(made)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"service": "Orders"}, "cannot own"),
        ({"realm": ""}, "realm"),
        ({"signing": ()}, "needs a signing"),
        ({"decryption": {}}, "needs a signing"),
        ({"roots": ()}, "pins 0 root keys"),
        ({"threshold": 0}, "asks for 0"),
        ({"threshold": 2}, "asks for 2"),
    ],
)
def test_a_keyring_that_could_not_work_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        replace(keyring(), **changes)  # type: ignore[arg-type]


def test_a_keyring_fits_the_bundle_that_lists_it() -> None:
    realm = Realm()

    for name, made in realm.keyrings.items():
        check_keyring(made, realm.stores[name].current)


def test_a_keyring_that_the_bundle_does_not_know_is_refused() -> None:
    realm = Realm()

    with pytest.raises(ConfigurationError, match=r"no keys of 'shop'.*sign a newer bundle"):
        check_keyring(realm.new_keyring("shop"), realm.stores["orders"].current)


@pytest.mark.parametrize("part", ["signing", "decryption"])
def test_a_keyring_without_a_key_in_use_is_refused(part: str) -> None:
    realm = Realm()
    other = realm.new_keyring("orders")
    made = replace(realm.keyrings["orders"], **{part: getattr(other, part)})

    with pytest.raises(ConfigurationError, match="lacks key"):
        check_keyring(made, realm.stores["orders"].current)


def test_keys_that_come_or_are_gone_may_be_missing() -> None:
    realm = Realm()

    def edit(payload: dict[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
        payload["services"]["orders"]["sign"][0]["state"] = "retiring"
        payload["services"]["orders"]["enc"][0]["state"] = "next"

    realm.publish(edit)

    check_keyring(realm.new_keyring("orders"), realm.stores["orders"].current)
