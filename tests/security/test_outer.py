from dataclasses import replace

import msgpack
import pytest

from messaging.errors import MalformedError, UnsupportedError
from messaging.security import outer
from messaging.security.merkle import path_length
from messaging.security.outer import Parts, join_parts, leaf_of, read_bin, split_parts

PARTS = Parts(b"h" * 300, b"b" * 70_000, b"c" * 20, b"s" * 64, 1, 0, b"")
SMALL = replace(PARTS, block=b"b" * 100)


def packed(*parts: object) -> bytes:
    return bytes(msgpack.packb(list(parts)))


def whole(**changes: object) -> bytes:
    values: dict[str, object] = {
        "v": 1, "header": b"h", "block": b"b", "content": b"c", "signature": b"s" * 64, "size": 1, "index": 0,
        "path": b"",
    }  # fmt: skip
    return packed(*(values | changes).values())


def split_or_none(body: bytes) -> Parts | None:
    try:
        parts = split_parts(body)
    except (MalformedError, UnsupportedError):
        return None
    assert join_parts(parts) == body
    return parts


def test_parts_are_those_of_msgpack() -> None:
    body = join_parts(SMALL)

    assert body == packed(1, SMALL.header, SMALL.block, SMALL.content, SMALL.signature, 1, 0, b"")
    assert split_parts(body) == SMALL
    assert leaf_of(body) == SMALL.leaf()


@pytest.mark.parametrize(("size", "index", "hashes"), [(2, 1, 1), (128, 127, 7), (128, 0, 7), (3, 2, 1), (127, 126, 6)])
def test_places_in_a_batch_are_read(size: int, index: int, hashes: int) -> None:
    parts = replace(SMALL, size=size, index=index, path=b"p" * 32 * hashes)

    assert split_parts(join_parts(parts)) == parts


def test_a_long_part_is_read_whole() -> None:
    parts = replace(SMALL, content=b"c" * 70_000)

    assert split_parts(join_parts(parts)) == parts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x98",
        b"\x97\x01",
        packed(1, b"h", b"b", b"c", b"s" * 64, 1, 0),
        packed(1, b"h", b"b", b"c", b"s" * 64, 1, 0, b"", b""),
        b"\x88" + whole()[1:],
        b"\xdc\x00\x08" + whole()[1:],
        whole(v=-1),
        whole(v=True),
        whole(v="1"),
        whole(header="h"),
        whole(block=None),
        whole(content=[]),
        whole(signature=b"s" * 63),
        whole(signature=b"s" * 65),
        whole(signature="s" * 64),
        whole(size=1.0),
        whole(size=True),
        whole(index=False),
        whole(size=0),
        whole(size=129, index=3),
        whole(size=200, index=3),
        whole(size=2, index=2, path=b"p" * 32),
        whole(index=300),
        whole(path=b"p" * 32),
        whole(size=2, path=b""),
        whole(size=2, path=b"p" * 31),
        whole(size=2, path=b"p" * 64),
        whole(path="p"),
        whole() + b"\x00",
        whole(header=b"h" * 4_097),
        whole(block=b"b" * 24_577),
        whole(path=b"p" * 225),
        b"\x98\x01\xc6\xff\xff\xff\xff",
        b"\x98\x01\xc5\x00\x01h" + whole()[5:],
        b"\x98\x01\xc6\x00\x00\x00\x01h" + whole()[5:],
        whole()[:-3] + b"\xcc\x01" + whole()[-2:],
        whole()[:-3] + b"\xcc",
        b"\x98\x01" + b"\xc4",
        b"\x98\x01" + b"\xc5\xff",
    ],
)
def test_every_other_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        split_parts(body)


@pytest.mark.parametrize("version", [0, 2, 127])
def test_other_versions_are_unsupported(version: int) -> None:
    with pytest.raises(UnsupportedError, match=f"version {version}"):
        split_parts(whole(v=version))


def test_a_body_beyond_the_cap_is_refused_by_its_length() -> None:
    with pytest.raises(MalformedError, match="not 4292673"):
        split_parts(bytes(outer.BODY_MAX + 1))


def test_every_cut_is_malformed() -> None:
    body = join_parts(replace(SMALL, size=2, index=1, path=b"p" * 32))

    for end in range(len(body)):
        with pytest.raises(MalformedError):
            split_parts(body[:end])


@pytest.mark.parametrize(("size", "index"), [(1, 0), (2, 1), (5, 4), (127, 3), (128, 3)])
def test_whatever_is_read_has_one_form(size: int, index: int) -> None:
    body = join_parts(replace(SMALL, size=size, index=index, path=bytes(path_length(size, index))))
    changed = [body[:at] + bytes((byte,)) + body[at + 1 :] for at in range(len(body)) for byte in range(256)]

    found = [read for one in changed if (read := split_or_none(one)) is not None]

    assert len(found) > 256


def test_a_string_is_read_at_its_offset() -> None:
    assert read_bin(b"\x00\xc4\x02ab\x00", 1, limit=2) == (b"ab", 5)
