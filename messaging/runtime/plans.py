"""`Plans`: what all messages of one class share on their way out, found with one look at the class."""

from dataclasses import dataclass
from typing import Final

from messaging.core.envelope import Kind, audience_of
from messaging.core.message import Contract, Message, contract_of
from messaging.core.topology import routing_key
from messaging.errors import ConfigurationError

__all__ = ["Plan", "Plans"]

# Classes that are remembered; beyond that, all are forgotten and looked at again.
_KNOWN_MAX: Final = 1_024
_VERBS: Final = {Kind.COMMAND: "send()", Kind.EVENT: "publish()", Kind.REQUEST: "request()"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all messages of one class share.

    Attributes:
        contract: What the class promises.
        audience: Whom its messages are for.
        routing_key: Their routing key, before a slot.
    """

    contract: Contract
    audience: str
    routing_key: str


class Plans:
    """The plans of one publisher."""

    def __init__(self) -> None:
        self._known: dict[type[Message], Plan] = {}

    def of(self, message: Message, kind: Kind) -> Plan:
        """Return the plan of a message that is sent as one of a kind.

        Raises:
            ConfigurationError: It is of another kind, or its class is abstract.
        """
        plan = self._known.get(type(message))
        return self._made(message, kind) if plan is None or plan.contract.kind is not kind else plan

    def _made(self, message: Message, kind: Kind) -> Plan:
        contract = contract_of(message)
        if contract.kind is not kind:
            raise ConfigurationError(
                f"{type(message).__name__} is a {contract.kind.word}: use {_VERBS[contract.kind]}, not {_VERBS[kind]}"
            )
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        plan = self._known[type(message)] = Plan(
            contract=contract,
            audience=audience_of(kind, contract.name),
            routing_key=routing_key(contract.name, contract.version),
        )
        return plan
