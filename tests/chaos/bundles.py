"""`Bundles`: newer versions of a run's trust bundle, signed by its throwaway root, and who has got which."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from messaging.ambient import real_ambient
from messaging.security.bundle_edit import Content, allow, deny, renew, with_part
from messaging.security.bundle_format import sign_bundle
from messaging.security.development_files import ROOT_FILE
from messaging.security.keyfile import keyring_file, load_keyring, write_keyring
from messaging.security.keys import SigningKey
from messaging.security.private_files import write_file
from messaging.security.public_part import part_of
from messaging.security.rotation import Plan, Step
from messaging.security.rotation_steps import take_step, with_new_keys
from messaging.security.trust import BUNDLE_FILE
from messaging.security.trust_folder import read_content

__all__ = ["CALLER", "Bundles"]

CALLER: Final = "load"
_PUBLIC_MODE: Final = 0o644


class Bundles:
    """The keys folder of a run, and copies of it that lag behind or are ahead.

    Args:
        keys: The folder of whoever is told no other one.
    """

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        root = json.loads((keys / ROOT_FILE).read_text())
        self._root = SigningKey(bytes.fromhex(root["root"]), realm=root["realm"])

    def copied(self, title: str) -> Path:
        """Return a copy of the keys and of the bundle that is in force."""
        return Path(shutil.copytree(self.keys, self.keys.with_name(f"keys-{title}")))

    def install(self, *folders: Path, newest: Path) -> None:
        """Put the bundle of one folder into others, in one rename each, as whoever distributes it must."""
        raw = (newest / BUNDLE_FILE).read_bytes()
        for folder in folders:
            write_file(folder / BUNDLE_FILE, raw, replace=True, mode=_PUBLIC_MODE)

    def edit(self, folder: Path, change: Callable[[Content], Content]) -> None:
        """Put the next version in force in a folder."""
        content = change(read_content((folder / BUNDLE_FILE).read_bytes()))
        now_ms = real_ambient().now_ms()
        raw = sign_bundle(renew(content, version=content["version"] + 1, now_ms=now_ms), [self._root])
        write_file(folder / BUNDLE_FILE, raw, replace=True, mode=_PUBLIC_MODE)

    def renew_key(self, folder: Path) -> None:
        """Give the caller a signing key in a folder that no other bundle knows yet; the one before only verifies."""
        path = folder / keyring_file(CALLER)
        newer = with_new_keys(load_keyring(path))
        write_keyring(newer, path, replace=True)

        def activated(content: Content) -> Content:
            plan = Plan(step=Step.ACTIVATE, earliest_ms=0, kids=(newer.signing[-1].kid.hex(),))
            return take_step(with_part(content, part_of(newer)), CALLER, plan, owned={})

        self.edit(folder, activated)

    def withhold(self, folder: Path, *granted: str) -> None:
        """Let the caller send, of all commands to the chaos service, only some."""

        def narrowed(content: Content) -> Content:
            content = deny(content, sender=CALLER, kind="command", name="chaos.*")
            for name in granted:
                content = allow(content, sender=CALLER, kind="command", name=name)
            return content

        self.edit(folder, narrowed)

    def grant(self, folder: Path, name: str) -> None:
        """Let the caller send one command more."""
        self.edit(folder, lambda content: allow(content, sender=CALLER, kind="command", name=name))
