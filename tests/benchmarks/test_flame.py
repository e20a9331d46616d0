"""What is written of a profile."""

import pytest

pytest.importorskip("psutil", reason="processes are read with the extra `bench`")

from benchmarks.flame import Profile, document
from benchmarks.flame_stacks import Frame, Stack


def profile(*, is_native: bool = True) -> Profile:
    stacks = [Stack((Frame("f", "messaging.core.ids"),), 1), Stack((Frame("g", "asyncio.events"),), 3)]
    return Profile(role="publish", cpu_us=60.0, per_s=12_000.0, stacks=stacks, is_native=is_native)


def test_each_part_has_its_share_and_its_time_the_largest_first() -> None:
    text = document([profile()], "here")

    assert text.index("| asyncio | 75.0% | 45.0 |") < text.index("| messaging.core | 25.0% | 15.0 |")
    assert "4 samples." in text
    assert "(flame-publish.svg)" in text


def test_a_look_without_native_frames_says_so() -> None:
    assert "C counts as its caller" in document([profile(is_native=False)], "here")
