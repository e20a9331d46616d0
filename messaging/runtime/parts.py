"""`Parts`: the objects that one service or operator works with; `messaging.assembly` builds them from settings."""

import asyncio
from dataclasses import dataclass, field

from messaging.core.ambient import Ambient
from messaging.core.topology import Names, Subscriptions
from messaging.runtime.publisher import Publisher
from messaging.runtime.replies import Replies
from messaging.security.keyring import Keyring
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.security.trust import TrustStore
from messaging.transports.base import Transport

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a service or an operator works with.

    Attributes:
        identity: Service, or `ops:<name>`.
        instance: 16 hex digits, fresh in each process.
        subscriptions: What it handles.
        lagging: Set when a message claims that a newer trust bundle exists.
    """

    identity: str
    instance: str
    subscriptions: Subscriptions
    keyring: Keyring
    trust: TrustStore
    transport: Transport
    names: Names
    ambient: Ambient
    opener: Opener
    sealer: Sealer
    publisher: Publisher
    replies: Replies
    lagging: asyncio.Event = field(default_factory=asyncio.Event)
