import itertools

from hypothesis import given
from hypothesis import strategies as st

from messaging.transports.amqp.settlements import How, Settlement, Settlements
from tests.support.measuring import measured


def settled(*tags: int, how: How = How.ACK, among: Settlements | None = None) -> list[Settlement]:
    settlements = Settlements() if among is None else among
    for tag in tags:
        settlements.add(tag, how)
    return settlements.take()


def test_run_from_the_oldest_becomes_one_frame() -> None:
    assert settled(2, 1, 3) == [Settlement(3, How.ACK, covers=3)]


def test_single_ack_covers_nothing_else() -> None:
    assert settled(1) == [Settlement(1, How.ACK)]


def test_ack_beyond_a_gap_stands_alone() -> None:
    assert settled(1, 2, 5, 4) == [
        Settlement(2, How.ACK, covers=2),
        Settlement(4, How.ACK),
        Settlement(5, How.ACK),
    ]


def test_closed_gap_lets_the_run_go_on() -> None:
    settlements = Settlements()
    settled(2, 3, among=settlements)

    assert settled(1, 4, among=settlements) == [Settlement(4, How.ACK, covers=2)]


def test_what_is_given_back_goes_before_the_ack_that_covers_it() -> None:
    settlements = Settlements()
    settlements.add(1, How.ACK)
    settlements.add(2, How.REJECT)
    settlements.add(3, How.GIVE_BACK)
    settlements.add(4, How.ACK)

    assert settlements.take() == [
        Settlement(2, How.REJECT),
        Settlement(3, How.GIVE_BACK),
        Settlement(4, How.ACK, covers=2),
    ]


def test_nothing_noted_is_nothing_said() -> None:
    settlements = Settlements()

    assert settled(1, 2, among=settlements)
    assert len(settlements) == 0
    assert settlements.take() == []


def test_one_that_stays_open_for_long_costs_nothing_for_those_after_it() -> None:
    settlements, tags = Settlements(), iter(range(2, 200_002))

    with measured() as cost:
        for _ in range(2_000):
            frames = settled(*itertools.islice(tags, 100), among=settlements)
            assert len(frames) == 100
            assert not any(frame.multiple for frame in frames)

    assert cost.peak_bytes < 256 * 1024
    assert settled(1, among=settlements) == [Settlement(1, How.ACK)]
    assert settled(200_002, 200_003, among=settlements) == [Settlement(200_003, How.ACK, covers=2)]


class FakeBroker:
    """Takes frames as the broker does: multiple covers every open tag up to its own; an unknown tag is an error."""

    def __init__(self, tags: int) -> None:
        self.open = set(range(1, tags + 1))
        self.told: dict[int, How] = {}

    def hear(self, frame: Settlement) -> None:
        assert frame.tag in self.open
        covered = {tag for tag in self.open if tag <= frame.tag} if frame.multiple else {frame.tag}
        self.open -= covered
        self.told.update(dict.fromkeys(covered, frame.how))


@given(
    st.permutations(range(1, 21)),
    st.lists(st.sampled_from(How), min_size=20, max_size=20),
    st.lists(st.booleans(), min_size=20, max_size=20),
    st.integers(0, 20),
)
def test_broker_is_told_exactly_what_happened(
    order: list[int], hows: list[How], pauses: list[bool], count: int
) -> None:
    settlements, broker = Settlements(), FakeBroker(20)
    wanted: dict[int, How] = {}

    for tag, how, pause in zip(order[:count], hows, pauses, strict=False):
        wanted[tag] = how
        settlements.add(tag, how)
        if pause:
            for frame in settlements.take():
                broker.hear(frame)
    for frame in settlements.take():
        broker.hear(frame)

    assert broker.told == wanted
