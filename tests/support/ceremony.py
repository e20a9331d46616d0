"""The ceremony for real keys through the command line, in a folder of its own, for tests of what comes after it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from messaging.security.keys import SigningKey
from messaging.security.roots import pins_of, write_pins, write_root
from messaging.security.trust_folder import TrustFolder, read_content
from tests.support.installation import Installation

__all__ = ["PASSPHRASE", "Ceremony"]

PASSPHRASE: Final = "correct horse"
REALM: Final = "prod-eu"
CHEAP: Final = 1 << 10
WEB: Final = "from messaging import Service\nweb = Service('web')\n"


@dataclass
class Ceremony:
    """A realm with two root keys of which `threshold` must sign; shop, web and ops:alice have keys.

    Attributes:
        installation: Runs the command line.
        kept: Where a ceremony is kept for the next test, which then has the same keys: passphrases take their time.
        threshold: How many roots must sign.
    """

    installation: Installation
    kept: Path
    threshold: int = 1

    def __post_init__(self) -> None:
        kept = self.kept / f"ceremony-{self.threshold}"
        if not kept.exists():
            before = set(self.home.iterdir())
            self._perform()
            kept.mkdir()
            for path in set(self.home.iterdir()) - before:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, kept / path.name)
            return
        shutil.copytree(kept, self.home, dirs_exist_ok=True)

    def _perform(self) -> None:
        self.keys.mkdir(mode=0o700)
        (self.home / "words").write_text(f"{PASSPHRASE}\n")
        (self.home / "web.py").write_text(WEB)
        roots = [SigningKey.generate(REALM) for _ in range(2)]
        pins = pins_of(REALM, [root.public.raw.hex() for root in roots], threshold=self.threshold)
        write_pins(pins, self.home / "trust.roots")
        for number, root in enumerate(roots):
            path = self.home / f"{number}.root"
            write_root(root, path, realm=REALM, passphrase=PASSPHRASE.encode(), cost=CHEAP)
        for name in ("shop", "web"):
            self.call("keys", "generate", name, "--keys", self.keys, "--roots", self.home / "trust.roots")
            self.call("keys", "export", name, "--keys", self.keys, "-o", self.home / f"{name}.json")
        self.call(
            *("keys", "generate", "ops:alice", "--keys", self.keys, "--roots", self.home / "trust.roots"),
            *("--passphrase-file", self.home / "words"),
        )
        self.call(
            *("keys", "export", "ops:alice", "--keys", self.keys, "-o", self.home / "alice.json"),
            *("--passphrase-file", self.home / "words"),
        )
        self.call("trust", "init", self.trust, "--roots", self.home / "trust.roots", *self.parts, *self.sources)
        self.sign()

    @property
    def home(self) -> Path:
        return self.installation.folder

    @property
    def keys(self) -> Path:
        return self.home / "real"

    @property
    def trust(self) -> Path:
        return self.home / "trust"

    @property
    def folder(self) -> TrustFolder:
        return TrustFolder(self.trust)

    @property
    def content(self) -> dict[str, Any]:
        """Content of the bundle in force."""
        raw = self.folder.current()
        assert raw is not None
        return read_content(raw)

    @property
    def drafted(self) -> dict[str, Any]:
        """Content of the draft."""
        return read_content(self.folder.draft())

    @property
    def parts(self) -> list[object]:
        return [word for name in ("shop", "web", "alice") for word in ("--part", self.home / f"{name}.json")]

    @property
    def sources(self) -> list[object]:
        return ["--from", "shop:shop", "--from", "web:web"]

    def call(self, *arguments: object, code: int = 0, said: str | None = None) -> str:
        """Run the command line and return what it says; it must end with this code."""
        result = self.installation.call(*map(str, arguments), said=said)
        assert result.exit_code == code, (arguments, result.output)
        return result.output

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Run the command line and return the JSON that it prints."""
        result = self.installation.call(*map(str, arguments), "--json")
        assert result.exit_code == code, (arguments, result.output)
        return json.loads(result.stdout)

    def change(self, *arguments: object, code: int = 0) -> str:
        """Run a verb of `trust` on this realm's folder."""
        return self.call("trust", *arguments, "--trust", self.trust, code=code)

    def sign(self, *, count: int | None = None) -> str:
        """Sign the draft with as many roots as it takes."""
        said = ""
        for number in range(self.threshold if count is None else count):
            said = self.change(
                *("sign", "--root", self.home / f"{number}.root", "--passphrase-file", self.home / "words", "--yes")
            )
        return said

    def rotate(self, identity: str, *arguments: object, code: int = 0) -> str:
        """Take a step of a rotation."""
        return self.call("keys", "rotate", identity, "--keys", self.keys, "--trust", self.trust, *arguments, code=code)
