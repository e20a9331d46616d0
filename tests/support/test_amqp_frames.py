"""Frames are found however the bytes are cut into pieces."""

import pytest

from tests.support.amqp_frames import BANNER_BYTES, Frames, Said

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + b"\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"


STREAM = b"".join((
    frame(METHOD, Said.DELIVER.method + b"tag and more"),
    frame(HEADER, bytes(40)),
    # A body that looks like a frame is none.
    frame(BODY, frame(METHOD, Said.CONFIRM.method)),
    frame(HEARTBEAT, b""),
    frame(METHOD, Said.CONFIRM.method + bytes(9)),
))  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 11, 4_096])
def test_methods_are_found_where_they_end(size: int) -> None:
    frames, found = Frames(), []

    for at in range(0, len(STREAM), size):
        found += [(at + end, method) for end, method in frames.feed(STREAM[at : at + size])]

    first = len(frame(METHOD, Said.DELIVER.method + b"tag and more"))
    assert found == [(first, Said.DELIVER.method), (len(STREAM), Said.CONFIRM.method)]


def test_what_a_client_says_first_is_no_frame() -> None:
    frames = Frames(skipped=BANNER_BYTES)

    found = list(frames.feed(b"AMQP\x00\x00\x09\x01" + frame(METHOD, Said.ACK.method + bytes(9))))

    assert [method for _, method in found] == [Said.ACK.method]


def test_a_confirm_and_an_acknowledgement_differ_by_who_says_them() -> None:
    assert Said.CONFIRM.method == Said.ACK.method
    assert (Said.CONFIRM.is_answer, Said.ACK.is_answer) == (True, False)
