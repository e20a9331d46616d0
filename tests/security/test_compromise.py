"""A stolen key: soon after its revocation nothing that it signed runs, whatever time it claims.

The services are real, their bundle lies on disk, and the revocation goes through the command line, as an operator's.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from messaging import Command, Context, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.codec import encode_model
from messaging.core.envelope import Envelope, Kind
from messaging.core.topology import routing_key
from messaging.security.bundle_edit import FirstPolicy, first_content
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.public_part import part_of
from messaging.security.roots import PINS_FILE, write_pins, write_root
from messaging.security.seal import Sealer
from messaging.security.trust import BUNDLE_FILE, open_trust
from messaging.transports.memory import MemoryBroker
from tests.support.installation import ROOT
from tests.support.trusting import Trusting, keyring_of
from tests.support.waiting import LIMIT_S, eventually, holds

POLL_S = 0.2
PASSPHRASE = "correct horse"


class Take(Command, name="gamma.take"):
    number: int


POLICY = FirstPolicy(handles={"gamma": frozenset({("command", "gamma.take")})}, subscribes={})


@dataclass
class Stolen:
    """A running service, and a thief with the keys of its client.

    Attributes:
        folder: Keys, bundle, draft and the root key, in one place.
        settings: Of the service.
        ran: What the service has handled.
    """

    folder: Path
    settings: Settings
    trusting: Trusting
    ran: list[int] = field(default_factory=list)
    service: Service | None = None

    @property
    def broker(self) -> MemoryBroker:
        return self.settings.shared(MemoryBroker, MemoryBroker)

    def signed(self, *numbers: int, at_ms: int | None = None) -> list[bytes]:
        """Return commands that the thief signs, in one batch."""
        ambient, names = real_ambient(), self.settings.names
        keyring = self.trusting.keyrings["alpha"]
        sealer = Sealer(
            keyring, open_trust(keyring, self.folder / BUNDLE_FILE, ambient=ambient), names, ambient=ambient
        )
        now_ms = ambient.now_ms() if at_ms is None else at_ms
        envelopes = [
            Envelope.first(
                id=UUID(int=number),
                kind=Kind.COMMAND,
                name="gamma.take",
                version=1,
                sender="alpha",
                issued_at_ms=now_ms,
                expires_at_ms=now_ms + 3_600_000,
                payload=encode_model(Take(number=number), 0),
            )
            for number in numbers
        ]
        key = routing_key("gamma.take", 1)
        return list(sealer.sign([sealer.prepare(envelope, routing_key=key) for envelope in envelopes]))

    def put(self, bodies: list[bytes]) -> None:
        """Put bytes into the service's queue, as whoever reaches the broker can."""
        names = self.settings.names
        for body in bodies:
            self.broker.inject(names.return_exchange("gamma"), names.queue("gamma", "commands"), body)

    def counts(self) -> dict[str, Any]:
        """Return how the service's deliveries ended."""
        assert self.service is not None
        counts = self.service.health.details["counts"]
        assert isinstance(counts, dict)
        return counts

    def call(self, *arguments: str) -> None:
        """Run the command line, as a program of its own."""
        subprocess.run(
            [sys.executable, "-m", "messaging", *arguments, "--trust", str(self.folder)],
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            check=True,
            timeout=LIMIT_S,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture
async def stolen(tmp_path: Path) -> AsyncIterator[Stolen]:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (tmp_path / "words").write_text(PASSPHRASE)
    trusting = Trusting(folder)
    write_pins(trusting.pins, folder / PINS_FILE)
    root = trusting.roots[0]
    write_root(root, tmp_path / "one.root", realm="test", passphrase=PASSPHRASE.encode(), cost=1 << 10)
    trusting.keyrings = {name: keyring_of(name, trusting.pins) for name in ("alpha", "gamma")}
    for name, keyring in trusting.keyrings.items():
        write_keyring(keyring, folder / keyring_file(name))
    now_ms = real_ambient().now_ms()
    parts = [part_of(keyring) for keyring in trusting.keyrings.values()]
    trusting.put(first_content("test", parts, POLICY, now_ms=now_ms), now_ms=now_ms)
    settings = Settings(broker_url="memory://", keys=folder, trust_poll_s=POLL_S)
    made = Stolen(folder=folder, settings=settings, trusting=trusting)
    service = made.service = Service("gamma", settings)

    @service.on_command(Take)
    async def take(command: Take, context: Context) -> None:
        made.ran.append(command.number)

    async with service:
        yield made


async def revoke(stolen: Stolen, reason: str) -> None:
    """Revoke the client's signing key and sign, as an operator does, then wait until the service has read it."""
    kid = stolen.trusting.keyrings["alpha"].signing[0].kid.hex()
    words = str(stolen.folder.parent / "words")
    await asyncio.to_thread(stolen.call, "trust", "revoke", kid, "--reason", reason)
    root = str(stolen.folder.parent / "one.root")
    await asyncio.to_thread(stolen.call, "trust", "sign", "--root", root, "--passphrase-file", words, "--yes")
    assert stolen.service is not None
    parts, version = stolen.service._parts, stolen.trusting.folder.content()["version"]
    assert parts is not None
    await eventually(lambda: parts.trust.current.version == version, what="the service has read the new bundle")


async def test_nothing_that_it_signed_runs_not_even_under_a_root_that_was_proven_before(stolen: Stolen) -> None:
    batch = stolen.signed(1, 2, 3, 4)
    stolen.put(batch[:2])
    await eventually(lambda: sorted(stolen.ran) == [1, 2], what="the batch's root is proven and kept")
    fresh, backdated = stolen.signed(5), stolen.signed(6, at_ms=real_ambient().now_ms() - 3_000_000)

    await revoke(stolen, "compromise")
    stolen.put([*batch[2:], *fresh, *backdated])

    await eventually(lambda: sum(stolen.counts().values()) >= 6, what="all six have been judged")
    await holds(lambda: sorted(stolen.ran) == [1, 2], what="nothing more has run")


async def test_what_waits_in_the_queue_is_judged_by_the_key_s_state_now(stolen: Stolen) -> None:
    waiting = stolen.signed(1, 2)

    await revoke(stolen, "retired")
    stolen.put(waiting)

    names = stolen.settings.names
    await eventually(
        lambda: len(stolen.broker.bodies(names.queue("gamma", "refused"))) == 2, what="both are kept as refused"
    )
    assert stolen.ran == []
