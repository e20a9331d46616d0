"""Key files: made, shown, never overwritten."""

import json
import stat
from pathlib import Path

import pytest

from messaging.security.keyfile import load_keyring
from tests.support.installation import Installation

ROOT = "5866666666666666666666666666666666666666666666666666666666666666"


class TestGenerate:
    def test_a_service(self, offline: Installation, tmp_path: Path) -> None:
        folder = tmp_path / "real"
        folder.mkdir()

        result = offline.call(
            *("keys", "generate", "billing", "--keys", str(folder), "--realm", "shop-1", "--root", ROOT, "--json")
        )

        shown = json.loads(result.stdout)
        keyring = load_keyring(folder / "billing.key")
        assert keyring.service == "billing"
        assert [key.public.raw.hex() for key in keyring.signing] == [key["pub"] for key in shown["sign"]]
        assert [root.raw.hex() for root in keyring.roots] == [ROOT]
        assert stat.S_IMODE((folder / "billing.key").stat().st_mode) == 0o600

    def test_no_private_key_is_shown(self, offline: Installation, tmp_path: Path) -> None:
        result = offline.call(
            *("keys", "generate", "billing", "--keys", str(tmp_path), "--realm", "shop-1", "--root", ROOT)
        )

        keyring = load_keyring(tmp_path / "billing.key")
        assert result.exit_code == 0
        secrets = [key.secret() for key in keyring.signing] + [key.secret() for key in keyring.decryption.values()]
        assert not any(secret.hex() in result.output for secret in secrets)

    def test_a_second_identity_takes_realm_and_roots_from_the_first(
        self, offline: Installation, tmp_path: Path
    ) -> None:
        folder = tmp_path / "real"
        folder.mkdir()
        offline.call("keys", "generate", "billing", "--keys", str(folder), "--realm", "shop-1", "--root", ROOT)
        (tmp_path / "words").write_text("correct horse\n")

        result = offline.call(
            *("keys", "generate", "ops:alice", "--keys", str(folder), "--passphrase-file", str(tmp_path / "words"))
        )

        assert result.exit_code == 0, result.stderr
        keyring = load_keyring(folder / "ops.alice.key", passphrase=b"correct horse")
        assert (keyring.service, keyring.realm) == ("ops:alice", "shop-1")

    def test_an_existing_file_is_kept(self, offline: Installation, tmp_path: Path) -> None:
        arguments = ("keys", "generate", "billing", "--keys", str(tmp_path), "--realm", "shop-1", "--root", ROOT)
        offline.call(*arguments)
        before = (tmp_path / "billing.key").read_bytes()

        result = offline.call(*arguments)

        assert result.exit_code == 2
        assert "exists already" in result.stderr
        assert (tmp_path / "billing.key").read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("Billing",), "is no identity"),
            (("billing",), "no key files to take them from"),
            (("billing", "--realm", "r", "--root", "ab"), "64 hex digits"),
            (("billing", "--realm", "r", "--root", "00" * 32), "small order"),
            (("ops:alice", "--realm", "r", "--root", ROOT), "needs a passphrase"),
            (("billing", "--realm", "dev-1", "--root", ROOT), "trust init --dev"),
        ],
    )
    def test_what_cannot_be_is_refused_with_the_remedy(
        self, offline: Installation, tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        folder = tmp_path / "real"
        folder.mkdir()

        result = offline.call("keys", "generate", *arguments, "--keys", str(folder))

        assert result.exit_code == 2
        assert words in result.stderr
        assert list(folder.iterdir()) == []

    def test_development_keys_are_made_by_trust_init(self, offline: Installation) -> None:
        result = offline.call("keys", "generate", "billing")

        assert result.exit_code == 2
        assert "trust init --dev" in result.stderr


class TestShow:
    def test_whose_files_there_are(self, offline: Installation) -> None:
        shown = offline.json("keys", "show", "--json")

        assert [entry["identity"] for entry in shown] == ["ops:dev", "shop"]
        assert all(entry["realm"].startswith("dev-") and not entry["passphrase"] for entry in shown)
        assert "ops.dev.key" in offline.call("keys", "show", str(offline.keys)).stdout

    def test_one_file(self, offline: Installation) -> None:
        shown = offline.json("keys", "show", str(offline.keys / "shop.key"), "--json")

        assert [entry["identity"] for entry in shown] == ["shop"]

    def test_an_empty_folder_matches_nothing(self, offline: Installation, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()

        assert offline.call("keys", "show", str(tmp_path / "empty")).exit_code == 5

    def test_a_missing_folder_and_none_at_all(self, offline: Installation, tmp_path: Path) -> None:
        missing = offline.call("keys", "show", str(tmp_path / "nowhere"))
        assert missing.exit_code == 2
        assert "there is no" in missing.stderr

    def test_a_damaged_file(self, offline: Installation) -> None:
        (offline.keys / "shop.key").write_text("{}")

        result = offline.call("keys", "show")

        assert result.exit_code == 2
        assert "damaged" in result.stderr
