"""Why each curve is as it is, in the words of somebody who looked at it; the numbers beside it come from the run."""

from collections.abc import Mapping
from typing import Final

__all__ = ["REASONS"]

REASONS: Final[Mapping[str, str]] = {}
