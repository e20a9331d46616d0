"""`Keyring`: the private keys of one service or operator, with the roots it trusts (docs/trust.md, "Key files").

All replicas of a service share one. It comes from a file and is never changed: a rotation writes a new file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from messaging.core.names import is_operator, is_sender
from messaging.errors import ConfigurationError
from messaging.security.bundle import KeyState, TrustBundle, missing_keys
from messaging.security.bundle_format import DEVELOPMENT_REALM, check_realm
from messaging.security.keys import DecryptionKey, SigningKey, VerifyKey
from messaging.security.suite import SUITE_1

__all__ = ["Keyring", "check_keyring"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Keyring:
    """The private side of one identity.

    Attributes:
        service: Service, or `ops:<name>` of an operator.
        realm: The realm of all its keys.
        signing: Signing keys; which one signs is what the bundle calls active.
        decryption: Own decryption keys by id.
        groups: Decryption keys of groups, by group and id.
        roots: The root keys whose bundles it believes.
        threshold: How many roots must have signed a bundle.
    """

    service: str
    realm: str
    signing: tuple[SigningKey, ...]
    decryption: Mapping[bytes, DecryptionKey]
    groups: Mapping[str, Mapping[bytes, DecryptionKey]] = field(default_factory=dict)
    roots: tuple[VerifyKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        check_realm(self.realm)
        if not is_sender(self.service):
            raise ConfigurationError(f"{self.service!r} cannot own a keyring: name a service or ops:<name>")
        if not self.signing or not self.decryption:
            raise ConfigurationError(f"the keyring of {self.service!r} needs a signing and a decryption key")
        if not 1 <= self.threshold <= len(self.roots):
            raise ConfigurationError(
                f"the keyring of {self.service!r} pins {len(self.roots)} root keys and asks for {self.threshold}: "
                "pin at least one, and ask for no more than are pinned"
            )

    @classmethod
    def generate(
        cls,
        service: str,
        *,
        realm: str,
        roots: Sequence[VerifyKey],
        threshold: int = 1,
        suites: Sequence[int] = (SUITE_1,),
    ) -> "Keyring":
        """Make fresh keys for a service or operator, with one encryption key of each suite."""
        keys = [DecryptionKey.generate(realm, suite) for suite in suites]
        return cls(
            service=service,
            realm=realm,
            signing=(SigningKey.generate(realm),),
            decryption={key.kid: key for key in keys},
            roots=tuple(roots),
            threshold=threshold,
        )

    @property
    def is_operator(self) -> bool:
        """Whether it belongs to a person."""
        return is_operator(self.service)

    @property
    def is_development(self) -> bool:
        """Whether its keys are throwaway ones of a developer's machine."""
        return self.realm.startswith(DEVELOPMENT_REALM)

    def with_group(self, group: str, keys: Sequence[DecryptionKey]) -> "Keyring":
        """Return a copy that can also open what is sealed to a group."""
        return replace(self, groups={**self.groups, group: {key.kid: key for key in keys}})

    def decryption_key(self, rid: str, rkid: bytes) -> DecryptionKey | None:
        """Return the private key for a row of a key block, if it is here."""
        if rid == self.service:
            return self.decryption.get(rkid)
        return self.groups.get(rid, {}).get(rkid)

    def __repr__(self) -> str:
        return f"Keyring({self.service!r}, realm={self.realm!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is never pickled; load its file in each process")


def check_keyring(keyring: Keyring, bundle: TrustBundle) -> None:
    """Compare a keyring with the bundle before anything is consumed.

    Raises:
        ConfigurationError: The bundle does not know the identity, or a key that others use is missing here.
    """
    service, version = keyring.service, bundle.version
    if service not in bundle.signing:
        raise ConfigurationError(missing_keys(service, bundle))
    in_use = {KeyState.ACTIVE, KeyState.RETIRING}
    held = {key.kid for key in keyring.signing}
    wanted = [entry.key.kid for entry in bundle.encryption[service] if entry.state in in_use]
    missing = [kid for kid in wanted if kid not in keyring.decryption]
    missing += [
        kid for kid, entry in bundle.signing[service].items() if entry.state is KeyState.ACTIVE and kid not in held
    ]
    if missing:
        raise ConfigurationError(
            f"the keyring of {service!r} lacks key {missing[0].hex()}, which trust bundle version {version} lists; "
            "install the key file that was made with that bundle"
        )
