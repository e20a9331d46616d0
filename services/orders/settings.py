"""Settings of the orders service, read from `ORDERS_…` when it starts."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import ServiceSettings

__all__ = ["OrdersSettings"]


class OrdersSettings(ServiceSettings):
    """What the orders service needs beside the settings of `messaging`.

    Attributes:
        database_url: SQLite file or PostgreSQL.
        users_timeout_s: How long to wait for the users service's answer, seconds.
    """

    model_config = SettingsConfigDict(env_prefix="ORDERS_")

    database_url: str = "sqlite+aiosqlite:///orders.db"
    users_timeout_s: float = Field(default=5.0, gt=0, le=60)
