"""What a lifespan yields: objects that handlers find by type, and perhaps the store."""

from collections.abc import Sequence
from typing import Any

from messaging.stores.base import Store

__all__ = ["listed", "store_among"]


def listed(opened: Any) -> Sequence[object]:
    """Return what a lifespan yielded as a list: nothing, one object, or several."""
    if opened is None:
        return ()
    return tuple(opened) if isinstance(opened, tuple | list) else (opened,)


def store_among(given: Store | None, resources: Sequence[object]) -> Store | None:
    """Return the store that was given, else the first that is among the resources."""
    return given or next((resource for resource in resources if isinstance(resource, Store)), None)
