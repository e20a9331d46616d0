"""Who acts, and with which passphrase."""

from pathlib import Path

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.operators import actor_of, operators_in, who_acts
from messaging.settings import Settings
from tests.support.installation import Installation


def settings(keys: Path | None) -> Settings:
    return Settings(broker_url="amqp://localhost/", keys=keys)


class TestWho:
    def test_the_only_operator_needs_no_name(self, offline: Installation) -> None:
        assert operators_in(offline.keys) == ["ops:dev"]
        assert who_acts(None, settings(offline.keys)) == "ops:dev"

    def test_a_name_with_and_without_the_prefix(self, offline: Installation) -> None:
        assert who_acts("alice", settings(offline.keys)) == "ops:alice"
        assert who_acts("ops:alice", settings(offline.keys)) == "ops:alice"

    def test_of_several_one_must_be_named(self, offline: Installation) -> None:
        (offline.keys / "ops.bob.key").touch()

        with pytest.raises(UsageError, match=r"--as ops:NAME.*ops:bob, ops:dev"):
            who_acts(None, settings(offline.keys))

    @pytest.mark.parametrize("given", ["Alice", "group:ops", "ops:", ""])
    def test_what_is_no_operator_is_refused(self, offline: Installation, given: str) -> None:
        with pytest.raises(UsageError, match="ops:alice"):
            who_acts(given, settings(offline.keys))

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no keys folder at .*nowhere"):
            who_acts(None, settings(tmp_path / "nowhere"))

    def test_without_keys_it_says_how_to_make_some(self) -> None:
        with pytest.raises(UsageError, match="trust init --dev"):
            who_acts(None, settings(None))


def test_the_embedded_broker_cannot_be_reached_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "memory://")

    with pytest.raises(UsageError, match="inside one process"):
        actor_of(None)


def test_a_sealed_key_file_and_nobody_to_ask(offline: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "words").write_text("correct horse\n")
    root = "58" + "66" * 31
    made = offline.call(
        *("keys", "generate", "ops:alice", "--keys", str(folder), "--realm", "r", "--root", root),
        *("--passphrase-file", str(tmp_path / "words")),
    )
    assert made.exit_code == 0, made.stderr

    result = offline.call("dead", "list", changes={"MESSAGING_KEYS": str(folder)})

    assert result.exit_code == 2
    assert "MESSAGING_PASSPHRASE_FILE" in result.stderr
