"""`Settings`: what an installation decides. The only reader of the environment, and only when one is made.

Every field is `MESSAGING_<NAME>` in the environment. `Settings.development()` needs nothing: embedded broker, throwaway
keys, everybody may talk to everybody; services made with the same settings object share both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from messaging.core.codec import describe
from messaging.core.topology import Declares, Names
from messaging.errors import ConfigurationError

__all__ = ["Settings"]

_SCHEMES: Final = ("amqp://", "amqps://")
MEMORY_URL: Final = "memory://"
T = TypeVar("T")


class Settings(BaseSettings):
    """What an installation decides.

    Attributes:
        broker_url: `amqp://user:password@host:port/vhost`, several nodes separated by commas, or `memory://`.
        keys: Folder with `<service>.key` and `trust.bundle`.
        namespace: First part of every exchange and queue; environments with different ones may share a vhost.
        publish_timeout_s, request_timeout_s, connect_timeout_s, handler_timeout_s, drain_timeout_s: Deadlines, seconds.
        prefetch: Unsettled deliveries per queue, which is also how many handlers run at once; 1 to 65535.
        signature_batch_max: Most messages that share one signature; 1 signs every message alone; at most 128.
        lifetime_s: How long a message may wait before it is buried as expired, seconds.
        heartbeat_s: AMQP heartbeat, seconds.
        fast: Whether channels handle the frames of messages themselves; False leaves them to the client library.
        inbox_ids, inbox_ttl_s: Of the in-memory inbox: most ids, and how long each is kept at least.
        inbox_alarm_rows: Rows of one sender in an hour in a durable inbox beyond which a service warns.
        allow_dev_keys: Accept development keys on a broker that is not on this machine.
        trust_min_version: Lowest version of the trust bundle to accept.
        trust_poll_s: How often the bundle's file is looked at, seconds.
        requests_ha: Whether requests wait in a quorum queue, `requests.ha`, which outlives a node of a cluster, and
            costs twice as much. The same for all replicas of a service.
        declare: What services make exist at the broker: `all`, `own` (all but the exchanges they share), or `replies`
            (their reply queues alone; `messaging topology apply` makes the rest).
        tls_ca_file: CAs that may vouch for the broker; default: the system's.
        tls_cert_file, tls_key_file: Client certificate and its key; without a user in the address it is the login.
        tls_server_name: Name that the broker's certificate must have; default: the host of the address.
        management_url: RabbitMQ's management API, such as `http://monitor:secret@127.0.0.1:15672`: lets `messaging
            doctor` and `messaging topology plan` see policies and bindings. Nothing at run time needs it.
        passphrase_file: File whose first line opens the keyring.
        failpoint: For tests of crashes: the step at which the process kills itself; see `runtime.failpoint`.
    """

    model_config = SettingsConfigDict(
        env_prefix="MESSAGING_",
        # A variable that is set to nothing is as good as unset: an empty path would be the current folder.
        env_ignore_empty=True,
        # Everything has a deadline, and there is no telling when that of an infinite number of seconds is.
        allow_inf_nan=False,
        frozen=True,
        extra="forbid",
    )

    # Not shown: it holds the broker's password.
    broker_url: str = Field(default="amqp://guest:guest@127.0.0.1:5672/", repr=False)
    keys: Path | None = None
    namespace: str = "messaging"
    publish_timeout_s: float = Field(default=10.0, gt=0)
    request_timeout_s: float = Field(default=10.0, gt=0)
    connect_timeout_s: float = Field(default=10.0, gt=0)
    handler_timeout_s: float = Field(default=60.0, gt=0)
    # With it and all that comes after, a service that stops stays below the 30 s of Kubernetes and most supervisors.
    drain_timeout_s: float = Field(default=20.0, ge=0)
    prefetch: int = Field(default=64, ge=1, le=65_535)
    signature_batch_max: int = Field(default=64, ge=1, le=128)
    lifetime_s: float = Field(default=7 * 24 * 3600.0, gt=0, le=30 * 24 * 3600.0)
    heartbeat_s: int = Field(default=10, ge=1, le=600)
    fast: bool = True
    inbox_ids: int = Field(default=100_000, ge=1)
    inbox_ttl_s: float = Field(default=3_600.0, gt=0)
    # Of one sender in an hour, in a durable inbox.
    inbox_alarm_rows: int = Field(default=1_000_000, ge=1)
    allow_dev_keys: bool = False
    trust_min_version: int = Field(default=0, ge=0)
    trust_poll_s: float = Field(default=5.0, gt=0)
    passphrase_file: Path | None = None
    # Not shown: it holds a password.
    management_url: str | None = Field(default=None, repr=False)
    failpoint: str | None = None
    requests_ha: bool = False
    declare: Declares = Declares.ALL
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_server_name: str | None = Field(default=None, min_length=1)

    # True for `development()`: keys are made in the process instead of read from `keys`.
    _throwaway_keys: bool = PrivateAttr(default=False)
    _shared: dict[type, object] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(
                f"settings: {describe(error)}; they come from arguments or from MESSAGING_… in the environment"
            ) from None

    @field_validator("broker_url")
    @classmethod
    def _check_urls(cls, value: str) -> str:
        urls = [url.strip() for url in value.split(",")]
        if urls == [MEMORY_URL] or all(url.startswith(_SCHEMES) for url in urls):
            return ",".join(urls)
        raise ConfigurationError(
            "MESSAGING_BROKER_URL: write amqp://user:password@host:5672/vhost (amqps:// for TLS; several nodes "
            "separated by commas), or memory:// for the embedded broker"
        )

    @field_validator("namespace")
    @classmethod
    def _check_namespace(cls, value: str) -> str:
        return Names(value).namespace

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ConfigurationError(
                "MESSAGING_TLS_KEY_FILE without MESSAGING_TLS_CERT_FILE: name the certificate that the key belongs to"
            )
        named = (self.tls_ca_file, self.tls_cert_file, self.tls_server_name)
        plain = [url for url in self.broker_urls if url.startswith("amqp://")]
        if plain and any(value is not None for value in named):
            # Whoever names certificates believes that the connection is safe.
            raise ConfigurationError(
                "MESSAGING_TLS_… is set, but an address in MESSAGING_BROKER_URL begins with amqp://, which is not "
                "protected: write amqps:// and the port for TLS (mostly 5671)"
            )
        return self

    @classmethod
    def development(cls, broker_url: str = MEMORY_URL, **values: Any) -> Self:
        """Return settings for trying out: throwaway keys, everybody may talk to everybody.

        Args:
            broker_url: The embedded broker by default, which lives as long as this object.
            **values: Other fields.
        """
        settings = cls(broker_url=broker_url, **values)
        settings._throwaway_keys = True
        return settings

    @property
    def has_throwaway_keys(self) -> bool:
        """Whether keys are made in this process."""
        return self._throwaway_keys

    @property
    def is_embedded(self) -> bool:
        """Whether the broker lives in this process."""
        return self.broker_url == MEMORY_URL

    @property
    def broker_urls(self) -> tuple[str, ...]:
        """The broker's nodes, in order of preference."""
        return tuple(self.broker_url.split(","))

    @property
    def names(self) -> Names:
        """The speller of exchanges and queues."""
        return Names(self.namespace, self.requests_ha)

    def shared(self, kind: type[T], build: Callable[[], T]) -> T:
        """Return the one object of a kind that everything made from these settings shares; built on first use."""
        if kind not in self._shared:
            self._shared[kind] = build()
        return cast("T", self._shared[kind])
