"""Settings of the gateway, read from `GATEWAY_…` when it starts."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import ServiceSettings

__all__ = ["GatewaySettings"]


class GatewaySettings(ServiceSettings):
    """What the gateway needs beside the settings of `messaging`.

    Attributes:
        host: Address to listen on; the loopback interface unless told otherwise.
        port: TCP port; 0 takes a free one.
        request_timeout_s: How long to wait for a service's answer, seconds.
        send_timeout_s: How long to wait for the broker's confirmation of a command, seconds.
    """

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    request_timeout_s: float = Field(default=5.0, gt=0, le=60)
    send_timeout_s: float = Field(default=5.0, gt=0, le=60)
