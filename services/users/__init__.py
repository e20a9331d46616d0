"""The users service. Run it with `python -m services.users` or `messaging run services.users:users`.

The service object is loaded when it is first asked for: others import the contract of this package and must not pay for
its handlers and database.
"""

import importlib
from typing import Final

from messaging import Service

__all__ = ["users"]

_SERVICE: Final = "users"


def __getattr__(name: str) -> Service:
    if name != _SERVICE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    service: Service = importlib.import_module(f"{__name__}.service").users
    return service
