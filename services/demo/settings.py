"""What the demo takes from the environment, and the environment that it gives to the programs it starts."""

import os
from collections.abc import Mapping

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import ServiceSettings

__all__ = ["DemoSettings", "environment_with"]

# What a child must not inherit: the demo decides about broker, keys and databases itself.
_OWN_PREFIXES = ("MESSAGING_", "USERS_", "ORDERS_", "GATEWAY_")
_INHERITED = ("MESSAGING_ALLOW_DEV_KEYS",)


class DemoSettings(ServiceSettings):
    """What the demo takes from the environment.

    Attributes:
        broker_url: MESSAGING_BROKER_URL: a broker to use instead of looking for one.
    """

    model_config = SettingsConfigDict(env_prefix="MESSAGING_", extra="ignore")

    broker_url: str | None = Field(default=None, min_length=1)


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment, without settings of services, with these variables."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES) or name in _INHERITED
    }
    return {**kept, **variables}
