"""docs/operations.md: the ceremony for real keys works as printed, and what it makes opens, verifies and is obeyed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from messaging.cli.broker_probe import free_port
from messaging.security.keyfile import load_keyring
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


@pytest.fixture
def real(tmp_path: Path) -> Installation:
    """Return an installation with the keys of the ceremony."""
    section = PAGE.read_text().partition("### Real keys")[2].partition("### Later")[0]
    printed = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    (tmp_path / "contract.py").write_text(CONTRACT)
    for name in ("words", "words-ada", "words-ben", "words-alice"):
        (tmp_path / name).write_text(f"{PASSPHRASE}\n")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", printed],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": path},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=90,
    )
    return Installation(folder=tmp_path, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")


def test_the_ceremony_makes_keys_that_open_and_a_bundle_that_verifies(real: Installation) -> None:
    shown = real.json("trust", "show", "--json")

    assert (shown["realm"], shown["development"], shown["services"]) == ("prod-eu", False, ["orders", "users"])
    assert load_keyring(real.keys / "ops.alice.key", passphrase=PASSPHRASE.encode()).service == "ops:alice"
    found = real.call("doctor", changes={"MESSAGING_PASSPHRASE_FILE": str(real.folder / "words")}).stdout
    assert [line for line in found.splitlines() if line.startswith("fail") and "broker" not in line] == []


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
