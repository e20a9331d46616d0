"""Until when keys of a bundle may be used."""

from dataclasses import replace

import pytest

from messaging.ambient import real_ambient
from messaging.cli.check_key_life import check_key_life
from messaging.cli.finding import Finding, State
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.keyfile import load_keyring
from messaging.security.trust import TrustStore
from tests.support.installation import Installation

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


@pytest.fixture
def bundle(offline: Installation) -> TrustBundle:
    store = TrustStore(load_keyring(offline.keys / "shop.key"), ambient=real_ambient())
    store.reload(offline.keys / "trust.bundle")
    return store.current


def ending(bundle: TrustBundle, role: str, *ends_ms: int | None) -> TrustBundle:
    """Return the bundle with active keys of the shop that end at these times."""
    if role == "signing":
        [(kid, signing)] = bundle.signing["shop"].items()
        entries = {bytes([number]) + kid[1:]: replace(signing, not_after_ms=end) for number, end in enumerate(ends_ms)}
        return replace(bundle, signing={**bundle.signing, "shop": entries})
    [encryption] = bundle.encryption["shop"]
    later = tuple(replace(encryption, not_after_ms=end) for end in ends_ms)
    return replace(bundle, encryption={**bundle.encryption, "shop": later})


def found(bundle: TrustBundle) -> Finding:
    [finding] = check_key_life(bundle, now_ms=NOW_MS)
    return finding


def test_keys_without_an_end_are_well(bundle: TrustBundle) -> None:
    assert found(bundle).state is State.OK


@pytest.mark.parametrize("role", ["signing", "encryption"])
@pytest.mark.parametrize(
    ("left_h", "state", "words"),
    [(72, State.OK, "no identity"), (5, State.WARN, "keys end in 5 h"), (-3, State.FAIL, "keys ended 3 h ago")],
)
def test_the_last_key_ends(bundle: TrustBundle, role: str, left_h: int, state: State, words: str) -> None:
    finding = found(ending(bundle, role, NOW_MS + left_h * HOUR_MS))

    assert finding.state is state
    assert words in finding.words
    assert state is State.OK or finding.words.startswith(f"shop's {role}")
    assert state is State.OK or "`messaging keys rotate shop`" in str(finding.remedy)


@pytest.mark.parametrize("role", ["signing", "encryption"])
@pytest.mark.parametrize("successor_ms", [None, NOW_MS + 100 * HOUR_MS])
def test_a_key_with_a_successor_may_end(bundle: TrustBundle, role: str, successor_ms: int | None) -> None:
    assert found(ending(bundle, role, NOW_MS - HOUR_MS, successor_ms)).state is State.OK


def test_keys_that_are_not_used_any_more_may_end(bundle: TrustBundle) -> None:
    ended = ending(bundle, "signing", NOW_MS - HOUR_MS)
    [(kid, entry)] = ended.signing["shop"].items()
    retired = replace(ended, signing={**ended.signing, "shop": {kid: replace(entry, state=KeyState.RETIRED)}})

    assert found(retired).state is State.OK
