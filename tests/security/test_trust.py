from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle_format import sign_bundle
from messaging.security.trust import BUNDLE_FILE, Freshness, TrustStore, open_trust
from tests.support.realm import START_MS, Realm

DAY_S = 24 * 3600


@pytest.fixture
def realm() -> Realm:
    return Realm()


def fresh_store(realm: Realm, minimum_version: int = 0) -> TrustStore:
    return TrustStore(realm.keyrings["orders"], ambient=realm.clock.ambient, minimum_version=minimum_version)


def test_without_a_bundle_nothing_is_believed(realm: Realm) -> None:
    store = fresh_store(realm)

    assert not store.is_loaded
    with pytest.raises(ConfigurationError, match="messaging trust init"):
        _ = store.current


def test_a_newer_bundle_takes_the_place_of_the_older(realm: Realm) -> None:
    store = realm.stores["orders"]

    store.replace(realm.change())

    assert store.is_loaded
    assert store.current.version == 3


def test_an_older_bundle_is_refused_and_the_last_good_stays(realm: Realm) -> None:
    store = realm.stores["orders"]
    older = realm.change()
    store.replace(realm.change())

    with pytest.raises(ConfigurationError, match="older than version 4"):
        store.replace(older)
    assert store.current.version == 4


def test_a_version_remembered_from_earlier_runs_counts(realm: Realm) -> None:
    store = fresh_store(realm, minimum_version=4)

    with pytest.raises(ConfigurationError, match="older than version 4"):
        store.replace(realm.change())
    store.replace(realm.change())

    assert store.current.version == 4


def test_one_version_has_one_content(realm: Realm) -> None:
    store = realm.stores["orders"]
    same = sign_bundle(realm.payload, [realm.root])
    other = sign_bundle(realm.payload | {"issued": START_MS + 1}, [realm.root])

    store.replace(same)

    with pytest.raises(ConfigurationError, match="two different trust bundles"):
        store.replace(other)


def test_garbage_leaves_the_last_good_in_force(realm: Realm) -> None:
    store = realm.stores["orders"]

    with pytest.raises(ConfigurationError):
        store.replace(b"garbage")

    assert store.current.version == 2


def test_an_expired_bundle_has_a_day_of_grace(realm: Realm) -> None:
    store = realm.stores["orders"]
    found = [store.freshness()]

    realm.clock.now_ms = store.current.expires_at_ms + 1
    found.append(store.freshness())
    store.usable()
    realm.clock.advance(DAY_S)
    found.append(store.freshness())

    assert found == [Freshness.FRESH, Freshness.GRACE, Freshness.EXPIRED]
    with pytest.raises(ConfigurationError, match="expired for more than a day"):
        store.usable()


def test_a_bundle_that_is_long_expired_is_not_taken(realm: Realm) -> None:
    raw = realm.change()
    realm.clock.advance(400 * DAY_S)

    with pytest.raises(ConfigurationError, match="expired"):
        fresh_store(realm).replace(raw)


def test_a_file_is_read_again(realm: Realm, tmp_path: Path) -> None:
    path = tmp_path / BUNDLE_FILE
    path.write_bytes(realm.change())
    store = fresh_store(realm)

    first, again = store.reload(path), store.reload(path)
    path.write_bytes(realm.change())
    newer = store.reload(path)

    assert (first, again, newer) == (True, False, True)


def test_a_missing_file_says_how_to_get_one(realm: Realm, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="messaging trust init"):
        fresh_store(realm).reload(tmp_path / BUNDLE_FILE)


def test_an_unreadable_file_says_so(realm: Realm, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        fresh_store(realm).reload(tmp_path)


def test_opening_compares_the_keyring_with_the_bundle(realm: Realm, tmp_path: Path) -> None:
    path = tmp_path / BUNDLE_FILE
    path.write_bytes(realm.change())

    store = open_trust(realm.keyrings["orders"], path, ambient=realm.clock.ambient)

    assert store.current.version == 3
    with pytest.raises(ConfigurationError, match="lacks key"):
        open_trust(realm.new_keyring("orders"), path, ambient=realm.clock.ambient)


def test_the_bundle_in_force_is_compared_with_what_earlier_runs_had(realm: Realm) -> None:
    store = realm.stores["orders"]
    current = store.current

    store.check_seen(current.version, current.generation)
    store.check_seen(current.version - 1, b"another")
    with pytest.raises(ConfigurationError, match="version 2 is older than version 3"):
        store.check_seen(current.version + 1, current.generation)
    with pytest.raises(ConfigurationError, match="two different trust bundles"):
        store.check_seen(current.version, b"another")
