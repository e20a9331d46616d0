import copy
import hmac
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from messaging.errors import ConfigurationError, DecryptionError, Disposition
from messaging.security import suite
from messaging.security.suite import DataKey

INFO = suite.wrap_info(sender="a", skid=bytes(8), rid="b", rkid=bytes(8), dek_id=bytes(16), made_at_ms=1)


def test_a_message_key_is_one_block_of_hkdf_expand() -> None:
    secret, salt, mid = bytes(range(32)), bytes(16), bytes(range(16))

    found = DataKey(secret).message_key(salt, mid)

    assert found == hmac.digest(secret, b"messaging/1/msg\0" + salt + mid + b"\x01", "sha512")[:32]


def test_messages_of_one_data_key_have_nothing_in_common() -> None:
    key = DataKey(bytes(32))

    keys = {key.derive(bytes(16), bytes(16)), key.derive(b"\x01" * 16, bytes(16)), key.derive(bytes(16), b"\x01" * 16)}

    assert len(keys) == 3


@pytest.mark.parametrize("act", [pickle.dumps, copy.deepcopy])
def test_a_data_key_leaves_its_process_by_no_door(act: object) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        act(DataKey(bytes(32)))  # type: ignore[operator]


def test_a_key_id_depends_on_algorithm_and_realm() -> None:
    ids = {
        suite.key_id(algorithm, realm, bytes(32))
        for algorithm in (suite.ED25519, suite.X25519)
        for realm in ("prod", "staging")
    }

    assert len(ids) == 4
    assert all(len(found) == 8 for found in ids)


def test_the_id_of_a_fault_counts_replays() -> None:
    first, again, replayed = (suite.fault_id(bytes(32), replays) for replays in (0, 0, 1))

    assert first == again != replayed


def test_content_is_bound_to_header_and_block() -> None:
    sealed = suite.aead_seal(bytes(32), b"text", block_digest=bytes(32), header=b"h")

    assert suite.aead_open(bytes(32), sealed, block_digest=bytes(32), header=b"h") == b"text"
    for digest, header in ((b"\x01" * 32, b"h"), (bytes(32), b"i")):
        with pytest.raises(DecryptionError) as caught:
            suite.aead_open(bytes(32), sealed, block_digest=digest, header=header)
        assert caught.value.disposition is Disposition.CONTENT


def test_a_wrap_opens_for_its_key_and_its_facts_alone() -> None:
    owner, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    wrapped = suite.wrap(bytes(32), owner.public_key(), INFO)

    assert len(wrapped) == suite.WRAPPED_BYTES[suite.SUITE_1]
    assert suite.unwrap(wrapped, owner, INFO) == bytes(32)
    for key, info in ((other, INFO), (owner, INFO + b"x")):
        with pytest.raises(DecryptionError):
            suite.unwrap(wrapped, key, info)


def test_a_wrap_of_anything_but_32_bytes_is_no_data_key() -> None:
    # AES would silently take 16 bytes as a weaker key.
    owner = X25519PrivateKey.generate()
    wrapped = suite.wrap(bytes(16), owner.public_key(), INFO)

    with pytest.raises(DecryptionError):
        suite.unwrap(wrapped, owner, INFO)


def test_two_keys_that_open_one_ciphertext_have_different_commitments() -> None:
    # AES-GCM does not bind its key; what stands against a ciphertext with two meanings is the commitment.
    first, second = DataKey(b"\x01" * 32), DataKey(b"\x02" * 32)
    salt, mid = bytes(16), bytes(16)

    assert first.derive(salt, mid)[1] != second.derive(salt, mid)[1]


def test_comparison_takes_whole_values() -> None:
    assert suite.same(b"abc", b"abc")
    assert not suite.same(b"abc", b"abd")


@pytest.mark.parametrize("realm", ["x" * 300, "réalm"])
def test_a_realm_that_no_key_id_can_hold_is_refused(realm: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a realm"):
        suite.key_id(suite.ED25519, realm, bytes(32))
