"""`ServiceSettings`: the base of each service's own settings, read from the environment when the service starts."""

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from messaging import ConfigurationError

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseSettings):
    """Frozen settings whose mistakes are one line that names the variable; derive with an `env_prefix`.

    Raises:
        ConfigurationError: a value does not fit.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            prefix = self.model_config.get("env_prefix", "")
            # Without the input: it may be a database URL with a password.
            problems = [
                f"{prefix}{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ]
            raise ConfigurationError("; ".join(problems)) from None
