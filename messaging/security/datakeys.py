"""The sender's data keys: one per set of recipients, renewed early and often (docs/spec.md, "Data keys").

A data key is wrapped once to each recipient and then seals many messages, each under keys of its own. It never outlives
a bound on messages, bytes, age, or a change of the trust bundle, and never crosses a fork: two processes that shared
one could repeat a salt after a restored snapshot.
"""

import os
from dataclasses import dataclass
from typing import Final

from messaging.core.ambient import Ambient
from messaging.errors import ConfigurationError
from messaging.security import suite
from messaging.security.bundle import TrustBundle, missing_keys
from messaging.security.keyblock import ROWS_MAX, KeyBlock, Row, pack_block
from messaging.security.keys import SigningKey
from messaging.security.suite import DATA_KEY_BYTES, DataKey

__all__ = ["SendKey", "SendKeys"]

MESSAGES_MAX: Final = 10_000
VOLUME_MAX: Final = 1 << 30
AGE_MAX_S: Final = 300.0
# A receiver allows the key to be 60 s younger and 15 min older than the message; wall clocks may be set in between.
AHEAD_MAX_MS: Final = 30_000
BEHIND_MAX_MS: Final = 300_000
SETS_MAX: Final = 256


@dataclass(slots=True, repr=False)
class SendKey:
    """A data key in use, with everything that stays the same from message to message.

    Attributes:
        key: The key.
        block: Its key block, as bytes.
        block_digest: SHA-256 of the block.
        made_at_ms: The time in the block.
        born_s: Monotonic time of its making.
        generation: Of the bundle whose keys it is wrapped to.
        process: Id of the process that made it.
        messages: How many messages it has sealed.
        volume: How many bytes.
    """

    key: DataKey
    block: bytes
    block_digest: bytes
    made_at_ms: int
    born_s: float
    generation: bytes
    process: int
    messages: int = 0
    volume: int = 0

    def takes(self, generation: bytes, issued_at_ms: int, now_s: float, size: int) -> bool:
        """Count one message more, if it may be sealed under this key; else it is spent.

        Args:
            generation: Of the bundle that is sent by.
            issued_at_ms: The message's issue, Unix milliseconds.
            now_s: Monotonic time.
            size: Bytes of the message.
        """
        volume = self.volume + size
        if (
            self.generation != generation
            or self.messages >= MESSAGES_MAX
            or volume > VOLUME_MAX
            or now_s - self.born_s >= AGE_MAX_S
            or not -AHEAD_MAX_MS <= issued_at_ms - self.made_at_ms < BEHIND_MAX_MS
            or self.process != os.getpid()
        ):
            return False
        self.messages += 1
        self.volume = volume
        return True


class SendKeys:
    """The data keys of one sender in this process."""

    def __init__(self, sender: str, *, ambient: Ambient) -> None:
        self._sender = sender
        self._ambient = ambient
        self._keys: dict[tuple[tuple[str, ...], bytes], SendKey] = {}

    def take(
        self, recipients: tuple[str, ...], *, signer: SigningKey, bundle: TrustBundle, issued_at_ms: int, size: int
    ) -> SendKey:
        """Return the key for one message of `size` bytes, and count it. Whoever keeps the key asks `SendKey.takes`.

        Raises:
            ConfigurationError: A recipient has no key in the bundle, or there are too many.
        """
        place = (recipients, signer.kid)
        found = self._keys.get(place)
        now_s = self._ambient.monotonic_s()
        if found is None or not found.takes(bundle.generation, issued_at_ms, now_s, size):
            self._keys.pop(place, None)
            if len(self._keys) >= SETS_MAX:
                del self._keys[next(iter(self._keys))]
            found = self._keys[place] = self._made(recipients, signer, bundle, issued_at_ms, now_s)
            found.messages, found.volume = 1, size
        return found

    def _made(
        self, recipients: tuple[str, ...], signer: SigningKey, bundle: TrustBundle, issued_at_ms: int, now_s: float
    ) -> SendKey:
        secret, dek_id = suite.fresh_bytes(DATA_KEY_BYTES), suite.fresh_bytes(16)
        rows: list[Row] = []
        for rid in recipients:
            keys = bundle.active_encryption_keys(rid, now_ms=self._ambient.now_ms(), suite=bundle.suite)
            if not keys:
                # Whatever other keys there are: falling back would let one recipient weaken what the bundle demands.
                what = f"active suite {bundle.suite} encryption key"
                raise ConfigurationError(missing_keys(rid, bundle, what=what))
            for key in keys:
                info = suite.wrap_info(
                    suite=bundle.suite,
                    sender=self._sender,
                    skid=signer.kid,
                    rid=rid,
                    rkid=key.kid,
                    dek_id=dek_id,
                    made_at_ms=issued_at_ms,
                )
                rows.append(Row(rid, key.kid, key.wrap(secret, info)))
        if len(rows) > ROWS_MAX:
            raise ConfigurationError(
                f"{len(rows)} keys to seal to, at most {ROWS_MAX} are possible: finish the rotations under way, "
                "or split the event"
            )
        block = pack_block(KeyBlock(dek_id, issued_at_ms, tuple(sorted(rows))))
        return SendKey(
            key=DataKey(secret),
            block=block,
            block_digest=suite.sha256(block),
            made_at_ms=issued_at_ms,
            born_s=now_s,
            generation=bundle.generation,
            process=os.getpid(),
        )
