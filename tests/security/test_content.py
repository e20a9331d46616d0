from typing import Any

import msgpack
import pytest

from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, CODEC_RAW
from messaging.errors import ConfigurationError, Disposition, MalformedError, UnsupportedError
from messaging.security.content import HEADERS_MAX, pack_content, pack_fault, parse_content, split_fault
from tests.support.realm import Clock, envelope


def plain(
    codec: object = 0, compression: object = 0, headers: object = None, body: object = b"", pad: object = b""
) -> bytes:
    return bytes(msgpack.packb([codec, compression, {} if headers is None else headers, body, pad]))


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 300, b"x" * 70_000])
@pytest.mark.parametrize("headers", [{}, {"tenant": "t", "nested": {"a": [1, None, b"x", 1.5]}}])
def test_a_content_comes_back(payload: bytes, headers: dict[str, Any]) -> None:
    packed = pack_content(codec=CODEC_JSON, headers=headers, payload=payload)

    found = parse_content(packed)

    assert packed == plain(CODEC_JSON, 0, headers, payload)
    assert (found.codec, found.headers, found.payload) == (CODEC_JSON, headers, payload)


def test_padding_is_read_and_ignored() -> None:
    assert parse_content(plain(body=b"x", pad=bytes(700))).payload == b"x"


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x95\x00\x00",
        msgpack.packb([0, 0, {}, b""]),
        plain(body="x"),
        plain(pad=None),
        plain(headers=[]),
        plain(headers="x"),
        plain(headers={1: 2}),
        plain(headers={b"k": 2}),
        plain(headers={"k": msgpack.ExtType(1, b"x")}),
        plain() + b"\x00",
        plain()[:-1],
        plain(headers={"k": "v" * HEADERS_MAX}),
        plain(headers={str(at): at for at in range(1025)}),
        b"\x95\x00\x00" + b"\x91" * 5000,
        b"\x95\x00\x00" + b"\x81\xa1k" * 3000,
        b"\x95\x00\x00\xdf\xff\xff\xff\xff",
        b"\x95\x00\x00\xc1",
    ],
)
def test_every_other_form_is_failed_content(plaintext: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_content(plaintext)

    assert caught.value.disposition is Disposition.CONTENT


@pytest.mark.parametrize("plaintext", [plain(codec=4), plain(codec=-1), plain(compression=1), plain(compression="x")])
def test_unknown_codecs_and_compressions_are_unsupported(plaintext: bytes) -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse_content(plaintext)

    assert caught.value.disposition is Disposition.CONTENT


@pytest.mark.parametrize(
    ("headers", "remedy"),
    [
        ({"k": object()}, "plain values"),
        ({"k": 2**70}, "plain values"),
        ({1: "v"}, "text as keys"),
        ({"k": "v" * HEADERS_MAX}, "shorten"),
    ],
)
def test_headers_that_cannot_travel_are_refused_at_the_sender(headers: dict[Any, Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        pack_content(codec=CODEC_MSGPACK, headers=headers, payload=b"")


@pytest.mark.parametrize("codec", [-1, 4])
def test_an_unknown_codec_is_refused_at_the_sender(codec: int) -> None:
    with pytest.raises(ConfigurationError, match="codec"):
        pack_content(codec=codec, headers={}, payload=b"")


def test_a_fault_comes_back() -> None:
    payload = pack_fault(b"sealed bytes", {"error": "ValueError", "chain": [{"error": "KeyError"}]})

    original, fault = split_fault(envelope(Clock(), payload=payload))

    assert payload == msgpack.packb([b"sealed bytes", {"error": "ValueError", "chain": [{"error": "KeyError"}]}])
    assert (original, fault) == (b"sealed bytes", {"error": "ValueError", "chain": [{"error": "KeyError"}]})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        msgpack.packb([b"x"]),
        msgpack.packb([b"x", {}, 1]),
        msgpack.packb(["x", {}]),
        msgpack.packb([b"x", []]),
        msgpack.packb([b"x", {1: 2}]),
        msgpack.packb([b"x", {"k": "v" * 40_000}]),
    ],
)
def test_what_is_no_fault_is_failed_content(payload: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        split_fault(envelope(Clock(), payload=payload))

    assert caught.value.disposition is Disposition.CONTENT


def test_a_fault_is_msgpack() -> None:
    with pytest.raises(MalformedError):
        split_fault(envelope(Clock(), payload=pack_fault(b"x", {}), codec=CODEC_RAW))


def test_a_fault_too_long_to_bury_is_refused_at_the_sender() -> None:
    with pytest.raises(ConfigurationError, match="shorten"):
        pack_fault(b"x", {"trace": "x" * 40_000})
