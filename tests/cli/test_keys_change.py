"""Key files that exist: their public part, their passphrase, keys that are no longer needed."""

import json
import shutil
from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging.security.keyfile import load_keyring, write_keyring
from messaging.security.rotation_steps import with_new_keys
from tests.support.ceremony import PASSPHRASE, Ceremony


def test_a_public_part_goes_to_a_file_or_stdout_and_is_not_secret(ceremony: Ceremony) -> None:
    path = ceremony.keys / "shop.key"

    result = ceremony.installation.call("keys", "export", str(path))

    keyring = load_keyring(path)
    assert json.loads(result.stdout)["identity"] == "shop"
    assert "fingerprint" in result.stderr
    assert keyring.signing[0].secret().hex() not in result.stdout
    assert json.loads((ceremony.home / "shop.json").read_text()) == json.loads(result.stdout)


def test_an_operator_s_part_needs_the_passphrase(ceremony: Ceremony) -> None:
    said = ceremony.call("keys", "export", "ops:alice", "--keys", ceremony.keys, code=2)

    assert "sealed with a passphrase" in said


def test_a_passphrase_is_set_changed_and_removed(ceremony: Ceremony) -> None:
    path, words, other = ceremony.keys / "shop.key", ceremony.home / "words", ceremony.home / "other"
    other.write_text("battery staple\n")
    before = load_keyring(path).signing[0].secret()

    ceremony.call("keys", "passwd", "shop", "--keys", ceremony.keys, "--new-passphrase-file", words)
    sealed = load_keyring(path, passphrase=PASSPHRASE.encode())
    ceremony.call("keys", "passwd", path, "--passphrase-file", words, "--new-passphrase-file", other)
    with pytest.raises(ConfigurationError, match="passphrase is wrong"):
        load_keyring(path, passphrase=PASSPHRASE.encode())
    said = ceremony.call("keys", "passwd", path, "--passphrase-file", other, "--remove")

    assert sealed.signing[0].secret() == load_keyring(path).signing[0].secret() == before
    assert "has no passphrase any more" in said


def test_a_person_s_passphrase_stays(ceremony: Ceremony) -> None:
    words = ceremony.home / "words"

    said = ceremony.call(
        "keys", "passwd", "ops:alice", "--keys", ceremony.keys, "--passphrase-file", words, "--remove", code=2
    )
    both = ceremony.call(
        *("keys", "passwd", "shop", "--keys", ceremony.keys, "--remove", "--new-passphrase-file", words), code=2
    )

    assert "needs a passphrase" in said
    assert "say one of them" in both


class TestForget:
    def forget(self, ceremony: Ceremony, *kids: str, code: int = 0) -> str:
        return ceremony.call("keys", "forget", "shop", *kids, "--keys", ceremony.keys, code=code)

    def test_keys_that_the_bundle_does_not_list_go(self, ceremony: Ceremony) -> None:
        shutil.copy(ceremony.trust / "trust.bundle", ceremony.keys)
        path = ceremony.keys / "shop.key"
        more = with_new_keys(load_keyring(path))
        write_keyring(more, path, replace=True)

        self.forget(ceremony, more.signing[1].kid.hex())

        assert [key.kid for key in load_keyring(path).signing] == [more.signing[0].kid]

    def test_keys_in_use_and_unknown_ones_stay(self, ceremony: Ceremony) -> None:
        shutil.copy(ceremony.trust / "trust.bundle", ceremony.keys)
        kid = load_keyring(ceremony.keys / "shop.key").signing[0].kid.hex()

        assert "messages need it" in self.forget(ceremony, kid, code=2)
        assert "holds no key 00" in self.forget(ceremony, "00", code=2)

    def test_without_a_bundle_nobody_knows(self, ceremony: Ceremony) -> None:
        assert "trust.bundle" in self.forget(ceremony, "00", code=1)


def test_no_folder_at_all_says_what_to_name(ceremony: Ceremony, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no" in ceremony.call("keys", "export", "shop", "--keys", Path("nowhere"), code=2)
