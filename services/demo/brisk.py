"""The orders service with a short retry ladder and little patience, so that a failure's story fits into seconds.

The demo runs `messaging run services.demo.brisk:orders`; everything else about the service is the real one's.
"""

from typing import Final

from services.orders.service import create

__all__ = ["DELAYS_S", "orders"]

DELAYS_S: Final = (1.0, 5.0)

orders = create(delays_s=DELAYS_S)
