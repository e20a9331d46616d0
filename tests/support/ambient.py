"""The real clock, ids and jitter, for tests against a real broker."""

import random
import time
from typing import Final
from uuid import uuid4

from messaging.core.ambient import Ambient

__all__ = ["REAL"]

REAL: Final = Ambient(
    now_ms=lambda: time.time_ns() // 1_000_000, monotonic_s=time.monotonic, new_id=uuid4, jitter=random.random
)
"""Everything as it is."""
