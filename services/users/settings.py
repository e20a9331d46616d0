"""Settings of the users service, read from `USERS_…` when it starts."""

from pydantic_settings import SettingsConfigDict

from services.settings import ServiceSettings

__all__ = ["UsersSettings"]


class UsersSettings(ServiceSettings):
    """What the users service needs beside the settings of `messaging`.

    Attributes:
        database_url: SQLite file or PostgreSQL.
    """

    model_config = SettingsConfigDict(env_prefix="USERS_")

    database_url: str = "sqlite+aiosqlite:///users.db"
