"""Where key files and bundles are."""

from pathlib import Path

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.key_place import key_path, keys_folder, opened, trust_folder, trust_place
from messaging.errors import ConfigurationError
from tests.support.ceremony import Ceremony


def test_an_identity_or_a_file(tmp_path: Path) -> None:
    assert key_path("ops:alice", tmp_path) == tmp_path / "ops.alice.key"
    assert key_path("elsewhere/shop.key", tmp_path) == Path("elsewhere/shop.key")


def test_the_setting_stands_in_for_what_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_KEYS", str(tmp_path))

    assert keys_folder(None) == trust_place(None) == tmp_path


def test_nothing_named_and_nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MESSAGING_KEYS", raising=False)

    with pytest.raises(UsageError, match="set MESSAGING_KEYS"):
        keys_folder(None)
    with pytest.raises(UsageError, match="--trust FOLDER"):
        trust_place(None)
    with pytest.raises(UsageError, match="mkdir -m 700"):
        keys_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="where it was made"):
        trust_folder(tmp_path)


def test_the_passphrase_file_of_the_settings_opens_too(ceremony: Ceremony, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_PASSPHRASE_FILE", str(ceremony.home / "words"))

    keyring, passphrase = opened(ceremony.keys / "ops.alice.key", file=None, fd=None)

    assert (keyring.service, passphrase) == ("ops:alice", b"correct horse")
    assert opened(ceremony.keys / "shop.key", file=None, fd=None)[1] is None
    assert trust_folder(ceremony.trust).path == ceremony.trust
