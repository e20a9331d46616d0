"""docs/operations.md and docs/security.md: the ceremony for real keys and the runbook work as printed."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from messaging.ambient import real_ambient
from messaging.cli.broker_probe import free_port
from messaging.security.keyfile import load_keyring
from messaging.security.keyring import check_keyring
from messaging.security.trust import open_trust
from tests.support.broker import Broker
from tests.support.installation import ROOT, Installation
from tests.support.terminal import Terminal

PAGE: Final = ROOT / "docs" / "operations.md"
PASSPHRASE: Final = "correct horse"
CONTRACT: Final = """
from messaging import Command
class Grant(Command, name="users.grant"):
    pass
"""


def run_printed(folder: Path, printed: str, **environment: str) -> str:
    """Run what a page prints, and return what it says."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", printed],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": path, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    return done.stdout


def keys_of(real: Installation, identity: str) -> dict[str, str]:
    """Return the key ids of an identity by role."""
    shown = real.json("trust", "show", "--json")
    return {key["role"]: key["kid"] for key in shown["keys"] if key["identity"] == identity}


@pytest.fixture
def real(tmp_path: Path) -> Installation:
    """Return an installation with the keys of the ceremony."""
    section = PAGE.read_text().partition("### Real keys")[2].partition("### Later")[0]
    printed = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    (tmp_path / "contract.py").write_text(CONTRACT)
    for name in ("words", "words-ada", "words-ben", "words-alice"):
        (tmp_path / name).write_text(f"{PASSPHRASE}\n")
    run_printed(tmp_path, printed)
    return Installation(folder=tmp_path, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")


def test_the_ceremony_makes_keys_that_open_and_a_bundle_that_verifies(real: Installation) -> None:
    shown = real.json("trust", "show", "--json")

    assert (shown["realm"], shown["development"], shown["services"]) == ("prod-eu", False, ["orders", "users"])
    assert load_keyring(real.keys / "ops.alice.key", passphrase=PASSPHRASE.encode()).service == "ops:alice"
    found = real.call("doctor", changes={"MESSAGING_PASSPHRASE_FILE": str(real.folder / "words")}).stdout
    assert [line for line in found.splitlines() if line.startswith("fail") and "broker" not in line] == []


def test_the_runbook_for_a_leaked_key_works_as_printed(real: Installation) -> None:
    printed = (ROOT / "docs" / "security.md").read_text().partition("## A key leaked")[2]
    steps = [dedent(step) for step in re.findall(r"^ *```sh\n(.*?)^ *```", printed, re.DOTALL | re.MULTILINE)]
    before = keys_of(real, "orders")
    stolen = {"SIGNING_KEY": before["sign"], "ENCRYPTION_KEY": before["encrypt"]}

    said = [run_printed(real.folder, step, **stolen) for step in steps]

    after = real.json("trust", "show", str(real.keys), "--json")
    states = {key["kid"]: key["state"] for key in after["keys"] if key["identity"] == "orders"}
    assert len(steps) == 3
    assert [states[kid] for kid in stolen.values()] == ["compromised", "compromised"]
    assert sorted(states.values()) == ["active", "active", "compromised", "compromised"]
    assert (after["version"], after["expires_at_ms"] - after["issued_at_ms"]) == (3, 30 * 24 * 3_600_000)
    assert "no usable key was left, so new keys are published and active at once" in said[2]
    keyring = load_keyring(real.keys / "orders.key")
    check_keyring(keyring, open_trust(keyring, real.keys / "trust.bundle", ambient=real_ambient()).current)


@pytest.mark.broker
def test_what_policy_does_not_grant_is_refused_with_exit_code_4(
    real: Installation, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real.folder)
    changes = {"MESSAGING_PASSPHRASE_FILE": str(real.folder / "words"), "MESSAGING_BROKER_URL": broker.url}

    result = real.call("send", "users.grant", "{}", "--from", "contract", changes=changes)

    assert result.exit_code == 4
    assert "users.grant" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.broker
@pytest.mark.parametrize(("typed", "code"), [(PASSPHRASE, 0), ("wrong", 2)])
def test_a_person_is_asked_for_the_passphrase_which_is_not_shown(
    real: Installation, broker: Broker, typed: str, code: int
) -> None:
    terminal = Terminal(real, "dead", "list", changes={"MESSAGING_BROKER_URL": broker.url})

    terminal.wait_for("Passphrase of ops:alice:")
    terminal.wait_for_secret()
    terminal.type(f"{typed}\n")

    assert terminal.end() == code
    assert f"{typed}\r\n" not in terminal.said
    assert ("No dead letters." in terminal.said) is (code == 0)
    assert "Traceback" not in terminal.said
