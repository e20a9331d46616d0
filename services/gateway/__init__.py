"""The gateway: the HTTP face of users and orders. Run it with `python -m services.gateway`.

The service object is loaded when it is first asked for: others import the contract of this package and must not pay for
its handlers and web framework.
"""

import importlib
from typing import Final

from messaging import Service

__all__ = ["gateway"]

_SERVICE: Final = "gateway"


def __getattr__(name: str) -> Service:
    if name != _SERVICE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    service: Service = importlib.import_module(f"{__name__}.service").gateway
    return service
