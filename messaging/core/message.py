"""`Command`, `Event`, `Request[R]`: what users write. Frozen pydantic models with an explicit wire name and version.

Rules:
- A class without its own `name=` is abstract and cannot be sent: inheriting would silently share the wire name.
- The name is the routing key; its first label is the service that owns the message.
- Unknown fields are ignored on receipt, so adding an optional field is compatible, and forbidden when constructed.
- `version=2` makes a second contract beside the first; a service may handle both (docs/evolution.md).
- `key=` names what orders a command: those of one key are handled one after the other where the owning service has
  partitions (docs/guide.md, "Order").

Example:
    class PlaceOrder(Command, name="orders.place_order"):
        order_id: UUID
        total_cents: int
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, Kind
from messaging.core.names import VERSION_MAX, is_message_name, owner_of, type_of
from messaging.core.partition import slot_of
from messaging.errors import ConfigurationError, RemoteFailure

__all__ = ["Command", "Contract", "Event", "Message", "Request", "contract_of", "slot_among"]

# Covariant: the answer is only ever received, so a request for a subclass serves where one for its base is expected.
R_co = TypeVar("R_co", covariant=True)

_CODECS: Final = {"msgpack": CODEC_MSGPACK, "json": CODEC_JSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a message class promises on the wire.

    Attributes:
        kind: Command, event or request.
        name: Wire name, such as `orders.place_order`.
        version: From 1.
        codec: How payloads are encoded.
        reply: Of requests: the type of the answer.
        raises: Of requests: the typed failures that a handler may raise.
        key: Of commands: returns what orders a message, or None; None: these have no order.
    """

    kind: Kind
    name: str
    version: int
    codec: int = CODEC_MSGPACK
    reply: TypeAdapter[Any] | None = None
    raises: tuple[type[RemoteFailure], ...] = ()
    key: Callable[[Any], object] | None = None

    @property
    def owner(self) -> str:
        """The service that owns the name."""
        return owner_of(self.name)

    @property
    def type(self) -> str:
        """Wire type, such as `orders.place_order/1`."""
        return type_of(self.name, self.version)


class Message(BaseModel):
    """Base of `Command`, `Event` and `Request`; not to be subclassed directly."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    __kind__: ClassVar[Kind | None] = None
    __contract__: ClassVar[Contract | None] = None

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        codec: Literal["msgpack", "json"] = "msgpack",
        raises: tuple[type[RemoteFailure], ...] = (),
        key: str | Callable[[Any], object] | None = None,
        **config: Any,
    ) -> None:
        """Accept the class keywords; `__pydantic_init_subclass__` acts on them once the model is complete."""
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        codec: Literal["msgpack", "json"] = "msgpack",
        raises: tuple[type[RemoteFailure], ...] = (),
        key: str | Callable[[Any], object] | None = None,
        **config: Any,
    ) -> None:
        """Check the class keywords and derive the contract.

        Raises:
            ConfigurationError: name, version, codec, raises or key are not what the wire can carry.
        """
        super().__pydantic_init_subclass__(**config)
        if cls.model_config.get("frozen") is not True:
            raise ConfigurationError(f"{cls.__name__}: messages are frozen; remove frozen=False")
        if not isinstance(raises, tuple | list):
            raise ConfigurationError(f"{cls.__name__}: raises= takes a tuple of classes, such as raises=(OutOfStock,)")
        if name is None:
            cls.__contract__ = None
            return
        cls.__contract__ = _contract(
            cls, name=name, version=version, codec=codec, raises=tuple(raises), key=_key_function(cls, key)
        )


class Command(Message):
    """An order to the service that owns the name; exactly one replica handles it."""

    __kind__ = Kind.COMMAND


class Event(Message):
    """Something that happened; every subscribing service gets its own copy."""

    __kind__ = Kind.EVENT


class Request(Message, Generic[R_co]):
    """A question to the service that owns the name; its argument is the type of the answer."""

    __kind__ = Kind.REQUEST


def contract_of(message: type[Message] | Message) -> Contract:
    """Return the contract of a message or message class.

    Raises:
        ConfigurationError: the class is abstract: it has no `name=` of its own.
    """
    contract: Contract | None = getattr(message, "__contract__", None)
    if contract is None:
        cls = message if isinstance(message, type) else type(message)
        if not issubclass(cls, Message):
            raise ConfigurationError(f"{cls.__name__} is no message: derive from Command, Event or Request")
        raise ConfigurationError(
            f"{cls.__name__} is abstract and cannot be sent or handled: give the class its own name=, "
            f'such as class {cls.__name__}(…, name="orders.place_order")'
        )
    return contract


def slot_among(message: Message, key: object = None) -> int | None:
    """Return the slot of a command, by its own key or the one given; None when it has none.

    Raises:
        ConfigurationError: its class declares no key, so the service that owns it expects none.
    """
    own = contract_of(message).key
    if own is None:
        if key is None:
            return None
        raise ConfigurationError(
            f"{type(message).__name__} has no key: declare one, such as class {type(message).__name__}(Command, …, "
            'key="order_id"), where its service sees it too'
        )
    key = own(message) if key is None else key
    return None if key is None else slot_of(key)


def _contract(
    cls: type[Message],
    *,
    name: str,
    version: int,
    codec: str,
    raises: tuple[type[RemoteFailure], ...],
    key: Callable[[Any], object] | None,
) -> Contract:
    kind = cls.__kind__
    if kind is None:
        raise ConfigurationError(f"{cls.__name__}: derive from Command, Event or Request, not from Message")
    if not is_message_name(name):
        raise ConfigurationError(
            f"{cls.__name__}: {name!r} is no message name; write <service>.<what>, such as orders.place_order"
        )
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise ConfigurationError(f"{cls.__name__}: version={version!r} must be an int from 1 to {VERSION_MAX}")
    if codec not in _CODECS:
        raise ConfigurationError(f"{cls.__name__}: codec={codec!r} must be one of {', '.join(_CODECS)}")
    if raises and kind is not Kind.REQUEST:
        raise ConfigurationError(f"{cls.__name__}: only requests declare raises=")
    if key is not None and kind is not Kind.COMMAND:
        raise ConfigurationError(f"{cls.__name__}: only commands declare key=; no order is kept among a {kind.word}s")
    return Contract(
        kind=kind,
        name=name,
        version=version,
        codec=_CODECS[codec],
        reply=_reply_adapter(cls) if kind is Kind.REQUEST else None,
        raises=_checked_failures(cls, raises),
        key=key,
    )


def _key_function(cls: type[Message], key: str | Callable[[Any], object] | None) -> Callable[[Any], object] | None:
    if key is None or callable(key):
        return key
    if not isinstance(key, str) or key.partition(".")[0] not in cls.model_fields:
        raise ConfigurationError(
            f'{cls.__name__}: key={key!r} names no field of it; name one, such as key="order_id", or give a function'
        )
    return attrgetter(key)


def _reply_adapter(cls: type[Message]) -> TypeAdapter[Any]:
    for base in cls.__mro__:
        metadata = getattr(base, "__pydantic_generic_metadata__", None)
        if metadata and metadata["origin"] is Request and not isinstance(metadata["args"][0], str | TypeVar):
            return TypeAdapter(metadata["args"][0])
    raise ConfigurationError(f"{cls.__name__}: say what the answer is: class {cls.__name__}(Request[Answer], …)")


def _checked_failures(cls: type[Message], raises: tuple[type[RemoteFailure], ...]) -> tuple[type[RemoteFailure], ...]:
    for failure in raises:
        if not (isinstance(failure, type) and issubclass(failure, RemoteFailure) and failure.failure_name):
            raise ConfigurationError(
                f"{cls.__name__}: raises= takes RemoteFailure classes with a name, not {failure!r}"
            )
    if len({failure.failure_name for failure in raises}) != len(raises):
        raise ConfigurationError(f"{cls.__name__}: two classes in raises= share a name")
    return raises
