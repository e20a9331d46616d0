"""`Verified`: a message whose signature holds, still encrypted. Only the checks of `open` make one.

It keeps the very bytes that were verified: whatever is decrypted, forwarded or buried later comes from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.ids import id_of
from messaging.core.values import value
from messaging.security.bundle import KeyState
from messaging.security.header import Header
from messaging.security.outer import Parts

__all__ = ["ExpectedReply", "Verified", "VerifiedDead"]


@value
class Verified:
    """A message that its sender signed.

    Attributes:
        body: The sealed bytes.
        parts: Their parts.
        header: The parsed header.
        leaf: What replies, faults and replays name it by, 32 bytes.
        id: Message id.
        key_state: State of the signing key now.
        accepted: Whether it passed every check up to the signature; if not, it is evidence and cannot be opened.
        archived: Whether it was verified for reading only: freshness and policy have not been asked.
    """

    body: bytes
    parts: Parts
    header: Header
    leaf: bytes
    id: UUID
    key_state: KeyState
    accepted: bool = True
    archived: bool = False

    @property
    def kind(self) -> Kind:
        """Kind."""
        return self.header.address.kind

    @property
    def name(self) -> str:
        """Message name; of replies, faults and replays that of the message concerned."""
        return self.header.name

    @property
    def version(self) -> int:
        """Contract version."""
        return self.header.version

    @property
    def type(self) -> str:
        """Wire type."""
        return self.header.address.typ

    @property
    def sender(self) -> str:
        """Who signed."""
        return self.header.address.sender

    @property
    def audience(self) -> str:
        """Who it is for."""
        return self.header.address.aud

    @property
    def exchange(self) -> str:
        """Exchange of the first publish."""
        return self.header.address.ex

    @property
    def routing_key(self) -> str:
        """Routing key of the first publish."""
        return self.header.address.rk

    @property
    def issued_at_ms(self) -> int:
        """Issue, Unix milliseconds."""
        return self.header.iat

    @property
    def expires_at_ms(self) -> int:
        """End of life, Unix milliseconds."""
        return self.header.exp

    @property
    def correlation_id(self) -> UUID | None:
        """Correlation; of a reply the id of its request."""
        return None if self.header.corr is None else id_of(self.header.corr)

    @property
    def causation_id(self) -> UUID | None:
        """The message whose handling sent this one."""
        cause = self.header.ext.get("cause")
        return None if cause is None else id_of(cause)

    @property
    def bind(self) -> bytes | None:
        """Leaf of the message answered, buried or replayed."""
        return self.header.bind

    @property
    def reply_to(self) -> str | None:
        """Of requests: where the reply goes."""
        return self.header.rto

    @property
    def traceparent(self) -> str | None:
        """W3C trace context."""
        return self.header.ext.get("traceparent")

    @property
    def bundle_version(self) -> int | None:
        """Version of the sender's trust bundle."""
        return self.header.ext.get("bv")

    @property
    def slot(self) -> int | None:
        """Of commands with a key, and of their replays: the slot that orders it."""
        return self.header.ext.get("slot")

    @property
    def ext(self) -> Mapping[str, Any]:
        """All extensions."""
        return self.header.ext

    def envelope(
        self, *, payload: bytes = b"", codec: int = CODEC_MSGPACK, headers: Mapping[str, Any] | None = None
    ) -> Envelope:
        """Return the envelope; without a payload it is what the header alone tells."""
        header = self.header
        address, ext = header.address, header.ext
        cause = ext.get("cause")
        # By position, which takes half the time: one for every message. What nothing caused starts its own
        # correlation: one object serves for both.
        return Envelope(
            self.id, address.kind, header.name, header.version, address.sender, address.aud, header.iat, header.exp,
            payload, codec,
            self.id if header.corr == header.mid else self.correlation_id,
            None if cause is None else id_of(cause),
            header.bind, header.rto,
            ext.get("traceparent"),
            {} if headers is None else headers,
            ext.get("bv"),
            ext.get("slot"),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Verified({self.kind.word} {self.type!r} {self.id} from {self.sender!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDead:
    """A message from a dead queue, for reading.

    Attributes:
        letter: The fault, or the message itself when the broker buried it.
        is_raw: Whether the broker buried it: there is no fault, and why it is here is a claim.
    """

    letter: Verified
    is_raw: bool

    @property
    def is_replayable(self) -> bool:
        """Whether it may be replayed: nothing under a compromised key ever runs again."""
        return self.letter.key_state is not KeyState.COMPROMISED


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReply:
    """What the one acceptable reply to a pending request looks like; taken from the request as it was sealed.

    Attributes:
        mid: Id of the request, 16 bytes.
        leaf: Leaf of the request, 32 bytes.
        aud: Audience of the request: who has to answer.
        typ: Wire type of the request.
        rto: Its reply queue.
    """

    mid: bytes
    leaf: bytes
    aud: str
    typ: str
    rto: str
