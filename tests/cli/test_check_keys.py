"""What `doctor` finds in a keys folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from messaging.ambient import real_ambient
from messaging.cli.check_keys import KeyCheck
from messaging.cli.finding import Finding, State
from messaging.security.keyfile import load_keyring, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import SigningKey
from messaging.settings import Settings
from tests.support.installation import Installation

DAY_MS = 24 * 3_600_000


def findings(
    keys: Path | None, *, later_ms: int = 0, broker_url: str = "amqp://127.0.0.1/", passphrase: bytes | None = None,
    allow_dev_keys: bool = False,
) -> dict[str, Finding]:  # fmt: skip
    real = real_ambient()
    check = KeyCheck(
        settings=Settings(keys=keys, broker_url=broker_url, allow_dev_keys=allow_dev_keys),
        ambient=replace(real, now_ms=lambda: real.now_ms() + later_ms),
        passphrase=passphrase,
    )
    return {finding.check: finding for finding in check.findings()}


def test_a_good_folder(offline: Installation) -> None:
    found = findings(offline.keys)

    assert {finding.state for finding in found.values()} == {State.OK}
    assert {"keys", "key file shop.key", "trust of shop", "bundle expiry", "clock", "development keys"} <= found.keys()


class TestTheFolder:
    def test_unset(self) -> None:
        assert findings(None)["keys"].state is State.FAIL

    def test_missing(self, tmp_path: Path) -> None:
        assert findings(tmp_path / "nowhere")["keys"].words == f"there is no folder {tmp_path / 'nowhere'}"

    def test_writable_by_others(self, offline: Installation) -> None:
        offline.keys.chmod(0o777)

        found = findings(offline.keys)["keys"]
        assert found.state is State.FAIL
        assert found.remedy == f"run `chmod go-w {offline.keys}`"

    def test_empty(self, tmp_path: Path) -> None:
        assert findings(tmp_path)["key files"].state is State.FAIL


class TestKeyFiles:
    def test_readable_by_others(self, offline: Installation) -> None:
        path = offline.keys / "shop.key"
        path.chmod(0o640)

        found = findings(offline.keys)["key file shop.key"]
        assert found.state is State.FAIL
        assert found.remedy == f"run `chmod 600 {path}`"

    def test_sealed_ones_stay_closed_without_their_passphrase(self, tmp_path: Path) -> None:
        made = Keyring.generate("ops:alice", realm="shop-1", roots=[SigningKey.generate("shop-1").public])
        write_keyring(made, tmp_path / "ops.alice.key", passphrase=b"words", cost=1 << 10)

        assert findings(tmp_path)["key file ops.alice.key"].state is State.OK
        assert findings(tmp_path, passphrase=b"words")["key file ops.alice.key"].state is State.OK
        wrong = findings(tmp_path, passphrase=b"other")["key file ops.alice.key"]
        assert wrong.state is State.FAIL
        assert "passphrase is wrong" in wrong.words


class TestTheBundle:
    def test_missing(self, offline: Installation) -> None:
        (offline.keys / "trust.bundle").unlink()

        found = findings(offline.keys)["trust of shop"]
        assert found.state is State.FAIL
        assert "trust init" in (found.remedy or "")

    def test_of_another_realm(self, offline: Installation, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        write_keyring(
            Keyring.generate("shop", realm="shop-1", roots=[SigningKey.generate("shop-1").public]), other / "shop.key"
        )
        (other / "trust.bundle").write_bytes((offline.keys / "trust.bundle").read_bytes())

        assert findings(other)["trust of shop"].state is State.FAIL

    def test_that_lists_another_key_than_the_file_holds(self, offline: Installation) -> None:
        path = offline.keys / "shop.key"
        held = load_keyring(path)
        write_keyring(Keyring.generate("shop", realm=held.realm, roots=held.roots), path, replace=True)

        found = findings(offline.keys)["trust of shop"]
        assert found.state is State.FAIL
        assert "lacks key" in found.words

    @pytest.mark.parametrize(("days", "state"), [(0, State.OK), (12.5, State.WARN), (14.5, State.FAIL)])
    def test_its_age(self, offline: Installation, days: float, state: State) -> None:
        assert findings(offline.keys, later_ms=int(days * DAY_MS))["bundle expiry"].state is state

    def test_beyond_grace_nothing_is_believed(self, offline: Installation) -> None:
        assert findings(offline.keys, later_ms=16 * DAY_MS)["trust of shop"].state is State.FAIL

    def test_a_clock_behind_its_issue(self, offline: Installation) -> None:
        found = findings(offline.keys, later_ms=-2 * 3_600_000)["clock"]

        assert found.state is State.FAIL
        assert "2 h in this machine's future" in found.words


class TestDevelopmentKeys:
    def test_on_a_broker_that_others_reach(self, offline: Installation) -> None:
        found = findings(offline.keys, broker_url="amqp://127.0.0.1/,amqp://broker.example/")

        assert found["development keys"].state is State.FAIL

    def test_by_leave(self, offline: Installation) -> None:
        found = findings(offline.keys, broker_url="amqp://broker.example/", allow_dev_keys=True)

        assert found["development keys"].state is State.WARN
