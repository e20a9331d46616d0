import msgpack
import pytest

from messaging.errors import Disposition, MalformedError
from messaging.security.packed import pack, unpack


def unpacked(raw: bytes, disposition: Disposition = Disposition.UNAUTHENTIC) -> object:
    return unpack(raw, what="part", array_max=4, map_max=2, text_max=8, bytes_max=8, disposition=disposition)


def test_what_is_packed_is_unpacked() -> None:
    assert unpacked(pack([1, "a", b"b", {"k": None}])) == [1, "a", b"b", {"k": None}]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x92\x01",
        pack([1]) + b"\x00",
        pack([1] * 5),
        pack({str(at): at for at in range(3)}),
        pack("x" * 9),
        pack(b"x" * 9),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\x00",
        b"\xa1\xff",
        b"\xa3\xed\xa0\x80",
        b"\x81\x90\x01",
        b"\x81\x01\x01",
        b"\xc1",
        msgpack.packb(msgpack.ExtType(5, b"abc")),
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
)
def test_whatever_is_wrong_is_one_error(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="the part is no valid msgpack") as caught:
        unpacked(raw, Disposition.CONTENT)

    assert caught.value.disposition is Disposition.CONTENT
