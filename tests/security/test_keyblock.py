from dataclasses import replace

import msgpack
import pytest

from messaging.errors import Disposition, MalformedError
from messaging.security.keyblock import ROWS_MAX, KeyBlock, Row, is_recipient, pack_block, parse_block
from messaging.security.outer import BLOCK_MAX

ROWS = (
    Row("billing", b"a" * 8, b"w" * 80),
    Row("billing", b"b" * 8, b"w" * 80),
    Row("group:ops", b"a" * 8, b"w" * 80),
    Row("ops:alice", b"a" * 8, b"w" * 80),
)
BLOCK = KeyBlock(b"d" * 16, 1_800_000_000_000, ROWS)


def packed(dek_id: object = b"d" * 16, made_at_ms: object = 1, rows: object = None) -> bytes:
    return bytes(msgpack.packb([dek_id, made_at_ms, [["a", b"k" * 8, b"w" * 80]] if rows is None else rows]))


def test_a_block_comes_back() -> None:
    assert parse_block(pack_block(BLOCK)) == BLOCK


def test_a_block_knows_its_recipients() -> None:
    assert BLOCK.has("group:ops")
    assert not BLOCK.has("users")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        msgpack.packb({}),
        msgpack.packb([b"d" * 16, 1]),
        msgpack.packb([b"d" * 16, 1, [], 1]),
        packed(dek_id=b"d" * 15),
        packed(dek_id="d" * 16),
        packed(made_at_ms=-1),
        packed(made_at_ms=True),
        packed(made_at_ms=1.0),
        packed(rows=[]),
        packed(rows={}),
        packed(rows=[["a", b"k" * 8]]),
        packed(rows=[["a", b"k" * 8, b"w" * 79]]),
        packed(rows=[["a", b"k" * 7, b"w" * 80]]),
        packed(rows=[["A", b"k" * 8, b"w" * 80]]),
        packed(rows=[["group:", b"k" * 8, b"w" * 80]]),
        packed(rows=[[b"a", b"k" * 8, b"w" * 80]]),
        packed(rows=["abc"]),
        packed(rows=[["a", b"k" * 8, b"w" * 80]] * 2),
        packed(rows=[["b", b"k" * 8, b"w" * 80], ["a", b"k" * 8, b"w" * 80]]),
        packed(rows=[["a", b"l" * 8, b"w" * 80], ["a", b"k" * 8, b"w" * 80]]),
        packed(rows=[[f"a{at:02}", b"k" * 8, b"w" * 80] for at in range(19)]),
        pack_block(BLOCK) + b"\x00",
        packed().replace(b"\xa1a\xc4", b"\xd9\x01a\xc4"),
    ],
)
def test_every_other_form_is_failed_content(raw: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_block(raw)

    assert caught.value.disposition is Disposition.CONTENT


def test_a_time_in_a_longer_form_is_malformed() -> None:
    raw = pack_block(replace(BLOCK, made_at_ms=1))
    at = raw.index(b"d" * 16) + 16

    with pytest.raises(MalformedError, match="canonical"):
        parse_block(raw[:at] + b"\xcc\x01" + raw[at + 1 :])


@pytest.mark.parametrize("name", ["orders", "ops:alice", "group:ops", "group:support-team"])
def test_services_operators_and_groups_receive(name: str) -> None:
    assert is_recipient(name)


@pytest.mark.parametrize("name", ["", "event:x.y", "group:", "group:Ops", "ops", "x:y", "group:ops\n"])
def test_nobody_else_does(name: str) -> None:
    assert not is_recipient(name)


def test_the_suite_says_how_long_a_wrapped_key_is() -> None:
    block = replace(BLOCK, rows=tuple(replace(row, wrapped=b"w" * 1168) for row in ROWS))
    raw = pack_block(block)

    assert parse_block(raw, suite=2) == block
    for other, suite in ((raw, 1), (pack_block(BLOCK), 2)):
        with pytest.raises(MalformedError):
            parse_block(other, suite=suite)


@pytest.mark.parametrize("size", [80, 1120, 1167, 1169])
def test_a_wrapped_key_of_suite_2_has_1168_bytes(size: int) -> None:
    raw = packed(rows=[["a", b"k" * 8, b"w" * size]])

    with pytest.raises(MalformedError):
        parse_block(raw, suite=2)


def test_the_largest_block_of_suite_2_is_within_the_limit() -> None:
    rows = tuple(Row(f"group:{chr(97 + at)}{'x' * 31}", b"k" * 8, b"w" * 1168) for at in range(ROWS_MAX))

    assert len(pack_block(KeyBlock(b"d" * 16, 2**63, rows))) <= BLOCK_MAX
