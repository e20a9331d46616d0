"""The ambient is a fixed record of callables."""

from dataclasses import FrozenInstanceError
from uuid import UUID

import pytest

from messaging.core.ambient import Ambient
from messaging.testing.clock import FixedClock


def test_it_hands_out_what_it_was_given() -> None:
    ambient = Ambient(now_ms=lambda: 1, monotonic_s=lambda: 2.0, new_id=lambda: UUID(int=3), jitter=lambda: 0.5)

    assert (ambient.now_ms(), ambient.monotonic_s(), ambient.new_id(), ambient.jitter()) == (1, 2.0, UUID(int=3), 0.5)


def test_nobody_changes_the_clock_of_another() -> None:
    ambient = FixedClock().ambient

    with pytest.raises(FrozenInstanceError):
        ambient.now_ms = lambda: 0  # type: ignore[misc]
