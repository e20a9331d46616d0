import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from messaging.security.outer import BODY_MAX
from messaging.transports.amqp.assembly import BODY_KEPT_BYTES, Assembly
from messaging.transports.amqp.wire import BODY, HEADER, METHOD, BrokenFrameError
from tests.support.measuring import measured


class Bench:
    """An assembly and the bodies that it finished."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.assembly = Assembly()

    def expect(self) -> None:
        self.assembly.expect(lambda _, body: self.bodies.append(body))

    def header(self, size: int) -> bool:
        return self._take(HEADER, pamqp.frame.marshal(ContentHeader(body_size=size), 1))

    def body(self, piece: bytes) -> bool:
        return self._take(BODY, pamqp.frame.marshal(ContentBody(piece), 1))

    def _take(self, kind: int, frame: bytes) -> bool:
        return self.assembly.take(kind, frame, 7, len(frame) - 1)


def test_pieces_become_one_body() -> None:
    bench = Bench()

    for body in (b"abcdef", b"gh"):
        bench.expect()
        assert bench.header(len(body))
        for at in range(0, len(body), 3):
            assert bench.body(body[at : at + 3])

    assert bench.bodies == [b"abcdef", b"gh"]


def test_empty_body_has_no_piece() -> None:
    bench = Bench()
    bench.expect()

    bench.header(0)

    assert bench.bodies == [b""]


def test_content_that_nobody_announced_is_left_alone() -> None:
    bench = Bench()

    assert not bench.header(3)
    assert not bench.body(b"abc")


def test_frames_out_of_order_are_broken() -> None:
    bench = Bench()
    bench.expect()
    with pytest.raises(BrokenFrameError):
        bench.body(b"abc")

    bench.header(3)
    for wrong in (lambda: bench.header(3), lambda: bench.body(b"abcd"), bench.expect):
        with pytest.raises(BrokenFrameError):
            wrong()

    with pytest.raises(BrokenFrameError):
        bench.assembly.take(METHOD, b"", 0, 0)


def test_more_than_any_message_has_is_not_kept() -> None:
    bench, piece = Bench(), b"x" * (1 << 20)

    for pieces in (20, 1):
        bench.expect()
        bench.header(pieces * len(piece))
        for _ in range(pieces):
            assert bench.body(piece)

    assert [len(body) for body in bench.bodies] == [BODY_KEPT_BYTES, len(piece)]


def test_what_is_cut_was_too_large_to_be_believed() -> None:
    assert BODY_KEPT_BYTES > BODY_MAX


def test_empty_pieces_without_end_are_not_kept() -> None:
    bench = Bench()
    bench.expect()
    bench.header(10)

    with measured() as cost:
        for _ in range(10_000):
            assert bench.body(b"")

    assert cost.peak_bytes < 10_000
    assert bench.bodies == []
