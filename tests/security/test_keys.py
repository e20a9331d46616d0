import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from messaging.errors import ConfigurationError, DecryptionError
from messaging.security import suite
from messaging.security.keys import DecryptionKey, EncryptionKey, SigningKey, VerifyKey

PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME
# y of a point of order 8; the test below derives that from the equation of the curve.
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


SMALL_Y = [
    0, 1, PRIME - 1, PRIME, PRIME + 1, int.from_bytes(ORDER_8, "little"), PRIME - int.from_bytes(ORDER_8, "little"),
]  # fmt: skip
SMALL_ED25519 = [encoded(y, sign) for y in SMALL_Y for sign in (0, 1)]


def test_the_constant_of_order_8_is_on_the_curve_and_of_order_8() -> None:
    y = int.from_bytes(ORDER_8, "little")
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME

    # The numerator of the y of the doubled point: it is 0 for a point of order 4.
    assert (y * y + x2) % PRIME == 0
    assert pow(x2, (PRIME - 1) // 2, PRIME) == 1


@pytest.mark.parametrize("raw", SMALL_ED25519, ids=lambda raw: raw.hex()[:8])
def test_the_14_small_order_keys_are_refused_though_the_library_loads_them(raw: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(raw)

    with pytest.raises(ConfigurationError, match="small order"):
        VerifyKey(raw, realm="test")


@pytest.mark.parametrize("y", [PRIME + 2, PRIME + 18, 2**255 - 1])
def test_a_second_encoding_of_a_signing_key_is_refused(y: int) -> None:
    with pytest.raises(ConfigurationError, match="canonical"):
        VerifyKey(encoded(y), realm="test")


@pytest.mark.parametrize(
    "raw",
    [
        encoded(0),
        encoded(1),
        encoded(PRIME - 1),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
    ids=lambda raw: raw.hex()[:8],
)
def test_small_order_encryption_keys_are_refused(raw: bytes) -> None:
    with pytest.raises(ConfigurationError, match="small order"):
        EncryptionKey(raw, realm="test")


@pytest.mark.parametrize("u", [PRIME, PRIME + 1, 9 | 1 << 255], ids=["p", "p+1", "top bit"])
def test_a_second_encoding_of_an_encryption_key_is_refused(u: int) -> None:
    with pytest.raises(ConfigurationError, match="canonical"):
        EncryptionKey(u.to_bytes(32, "little"), realm="test")


@pytest.mark.parametrize("make", [VerifyKey, SigningKey, EncryptionKey, DecryptionKey])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_have_32_bytes(make: Callable[..., object], size: int) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        make(b"\x09" * size, realm="test")


def test_a_signature_holds_for_its_key_and_statement_alone() -> None:
    key, other = SigningKey.generate("test"), SigningKey.generate("test")
    signature = key.sign(b"statement")

    assert key.public.holds(signature, b"statement")
    assert not key.public.holds(signature, b"statemenu")
    assert not other.public.holds(signature, b"statement")
    assert not key.public.holds(signature[:-1], b"statement")
    assert not key.public.holds(bytes(64), b"statement")


def test_the_same_signature_has_no_second_form() -> None:
    key = SigningKey.generate("test")
    signature = key.sign(b"statement")
    order = 2**252 + 27742317777372353535851937790883648493
    shifted = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")

    assert not key.public.holds(signature[:32] + shifted, b"statement")


def test_keys_come_back_from_their_secrets() -> None:
    signing, decryption = SigningKey.generate("test"), DecryptionKey.generate("test")

    assert SigningKey(signing.secret(), realm="test").kid == signing.kid
    assert DecryptionKey(decryption.secret(), realm="test").kid == decryption.kid
    assert SigningKey(signing.secret(), realm="other").kid != signing.kid


def test_a_wrap_opens_for_its_owner() -> None:
    owner, other = DecryptionKey.generate("test"), DecryptionKey.generate("test")

    wrapped = owner.public.wrap(bytes(32), b"info")

    assert owner.unwrap(wrapped, b"info") == bytes(32)
    with pytest.raises(DecryptionError):
        other.unwrap(wrapped, b"info")


@pytest.mark.parametrize("key", [SigningKey.generate("test"), DecryptionKey.generate("test")])
def test_private_keys_show_nothing_and_are_not_pickled(key: Any) -> None:
    assert key.secret().hex() not in repr(key)
    assert key.kid.hex() in repr(key)
    assert key.public.kid.hex() in repr(key.public)
    for act in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="never pickled"):
            act(key)


class TestHybrid:
    """X-Wing: ML-KEM-768 and X25519 as one key of suite 2."""

    KEY = DecryptionKey.generate("test", suite.SUITE_2)

    def test_has_an_id_suite_and_algorithm_of_its_own(self) -> None:
        public = self.KEY.public

        assert (public.suite, public.algorithm, self.KEY.suite) == (2, suite.XWING, 2)
        assert public.kid == suite.key_id(suite.XWING, "test", public.raw)
        assert [len(part) for part in public.parts] == [1184, 32]
        assert b"".join(public.parts) == public.raw

    def test_comes_back_from_its_secret(self) -> None:
        assert len(self.KEY.secret()) == 96
        assert DecryptionKey(self.KEY.secret(), realm="test").public.raw == self.KEY.public.raw
        assert EncryptionKey(self.KEY.public.raw, realm="test").kid == self.KEY.kid

    def test_opens_what_is_wrapped_to_it_and_nothing_else(self) -> None:
        other = DecryptionKey.generate("test", suite.SUITE_2)

        wrapped = self.KEY.public.wrap(bytes(32), b"info")

        assert len(wrapped) == suite.WRAPPED_BYTES[suite.SUITE_2]
        assert self.KEY.unwrap(wrapped, b"info") == bytes(32)
        for key, facts in ((self.KEY, b"other"), (other, b"info"), (DecryptionKey.generate("test"), b"info")):
            with pytest.raises(DecryptionError):
                key.unwrap(wrapped, facts)

    @pytest.mark.parametrize("at", [0, 1087, 1088, 1119, 1120, 1167], ids=lambda at: f"byte {at}")
    def test_a_changed_wrap_does_not_open(self, at: int) -> None:
        wrapped = bytearray(self.KEY.public.wrap(bytes(32), b"info"))
        wrapped[at] ^= 1

        with pytest.raises(DecryptionError):
            self.KEY.unwrap(bytes(wrapped), b"info")

    @pytest.mark.parametrize("size", [0, 80, 1120, 1167])
    def test_a_shortened_wrap_does_not_open(self, size: int) -> None:
        with pytest.raises(DecryptionError):
            self.KEY.unwrap(self.KEY.public.wrap(bytes(32), b"info")[:size], b"info")

    @pytest.mark.parametrize("at", [0, 1, 766, 767])
    @pytest.mark.parametrize("number", [3329, 4095])
    def test_a_second_encoding_of_its_lattice_half_is_refused(self, at: int, number: int) -> None:
        raw = with_number(self.KEY.public.raw, at, number)

        with pytest.raises(ConfigurationError, match=r"ML-KEM-768 key .* canonical"):
            EncryptionKey(raw, realm="test")

    def test_the_largest_number_of_its_lattice_half_is_no_second_encoding(self) -> None:
        assert EncryptionKey(with_number(self.KEY.public.raw, 767, 3328), realm="test").suite == 2

    @pytest.mark.parametrize(
        ("curve", "problem"),
        [
            (encoded(0), "small order"),
            (encoded(PRIME - 1), "small order"),
            (encoded(PRIME), "canonical"),
            (encoded(9, 1), "canonical"),
        ],
        ids=["0", "p-1", "p", "top bit"],
    )
    def test_its_curve_half_is_checked_like_a_key_of_suite_1(self, curve: bytes, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            EncryptionKey(self.KEY.public.raw[:1184] + curve, realm="test")

    @pytest.mark.parametrize("size", [64, 95, 97])
    def test_its_secret_has_96_bytes(self, size: int) -> None:
        with pytest.raises(ConfigurationError, match="32 bytes"):
            DecryptionKey(bytes(size), realm="test")

    @pytest.mark.parametrize("size", [1184, 1215, 1217])
    def test_its_public_key_has_1216_bytes(self, size: int) -> None:
        with pytest.raises(ConfigurationError, match="32 bytes"):
            EncryptionKey(b"\x09" * size, realm="test")

    def test_an_openssl_without_ml_kem_is_named_with_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "mlkem_supported", lambda: False)

        for make, raw in ((EncryptionKey, self.KEY.public.raw), (DecryptionKey, self.KEY.secret())):
            with pytest.raises(ConfigurationError, match=r"OpenSSL 3\.5"):
                make(raw, realm="test")

    def test_shows_nothing_and_is_not_pickled(self) -> None:
        assert self.KEY.secret().hex() not in repr(self.KEY)
        assert repr(self.KEY.public) == f"EncryptionKey({self.KEY.kid.hex()})"
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(self.KEY)


def with_number(raw: bytes, at: int, number: int) -> bytes:
    """Return an encapsulation key with one of its 768 numbers, 12 bits each, set to another."""
    bits = int.from_bytes(raw[:1152], "little") & ~(0xFFF << 12 * at) | number << 12 * at
    return bits.to_bytes(1152, "little") + raw[1152:]
