import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from messaging.ambient import BLOCK_IDS, real_ambient


def test_ids_are_version_7_of_the_standard_variant() -> None:
    new_id = real_ambient().new_id

    ids = [new_id() for _ in range(1_000)]

    assert {id.version for id in ids} == {7}
    assert {id.variant for id in ids} == {RFC_4122}


def test_ids_carry_the_time_of_their_making() -> None:
    ambient = real_ambient()

    before_ms = ambient.now_ms()
    id = ambient.new_id()
    after_ms = ambient.now_ms()

    assert before_ms <= id.int >> 80 <= after_ms


def test_ids_sort_by_time() -> None:
    ambient = real_ambient()

    first = ambient.new_id()
    time.sleep(0.002)  # the clock of ids is the machine's own, to the millisecond
    second = ambient.new_id()

    assert first < second


def test_no_id_repeats_over_many_blocks() -> None:
    new_id = real_ambient().new_id
    count = BLOCK_IDS * 40 + 1

    assert len({new_id() for _ in range(count)}) == count


def test_every_random_bit_is_used() -> None:
    new_id = real_ambient().new_id

    ids = [new_id().int & ((1 << 80) - 1) for _ in range(2_000)]

    ever_set = ever_clear = 0
    for id in ids:
        ever_set |= id
        ever_clear |= ~id & ((1 << 80) - 1)
    fixed = (0xF << 76) | (0b11 << 62)
    assert (ever_set & ever_clear) == ((1 << 80) - 1) & ~fixed


def test_threads_share_one_ambient_without_repeating() -> None:
    new_id = real_ambient().new_id
    start = threading.Barrier(8)

    def many() -> list[UUID]:
        start.wait()
        return [new_id() for _ in range(5_000)]

    with ThreadPoolExecutor(8) as pool:
        ids = [id for made in [pool.submit(many) for _ in range(8)] for id in made.result()]

    assert len(set(ids)) == 40_000


def test_forked_child_draws_its_own_randomness() -> None:
    new_id = real_ambient().new_id
    new_id()  # the parent holds a drawn block when it forks
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(new_id().bytes for _ in range(BLOCK_IDS)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        written = pipe.read()
    os.waitpid(child, 0)
    of_child = {written[start + 6 : start + 16] for start in range(0, len(written), 16)}
    of_parent = {new_id().bytes[6:] for _ in range(BLOCK_IDS)}

    assert len(of_child) == BLOCK_IDS
    assert of_child.isdisjoint(of_parent)


def test_clocks_go_with_the_machine() -> None:
    ambient = real_ambient()

    before_s, monotonic_s = time.time(), time.monotonic()

    assert abs(ambient.now_ms() / 1000 - before_s) < 5
    assert monotonic_s <= ambient.monotonic_s() < monotonic_s + 5


def test_jitter_is_spread_over_the_unit_interval() -> None:
    jitter = real_ambient().jitter

    samples = [jitter() for _ in range(2_000)]

    assert all(0 <= sample < 1 for sample in samples)
    assert min(samples) < 0.05
    assert max(samples) > 0.95
    assert 0.45 < sum(samples) / len(samples) < 0.55
