"""Passphrases: from a file, a descriptor or a terminal, never from an argument."""

import os
from pathlib import Path

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.passphrases import known_passphrase, new_passphrase


def descriptor(content: bytes) -> int:
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return read


def test_a_file_s_first_line(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"correct horse\nand more\n")

    assert new_passphrase("orders", file=tmp_path / "words", fd=None, ask=False) == b"correct horse"
    assert known_passphrase("orders", file=tmp_path / "words", fd=None) == b"correct horse"


def test_a_descriptor_s_first_line() -> None:
    assert known_passphrase("orders", file=None, fd=descriptor(b"correct horse\n")) == b"correct horse"


def test_nobody_is_asked_who_need_not_be() -> None:
    assert new_passphrase("orders", file=None, fd=None, ask=False) is None


def test_somebody_at_the_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def prompt(text: str, **options: object) -> str:
        asked.append(text)
        assert options["hide_input"]
        return "correct horse"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", prompt)

    assert new_passphrase("ops:alice", file=None, fd=None, ask=True) == b"correct horse"
    assert known_passphrase("ops:alice", file=None, fd=None) == b"correct horse"
    assert asked == ["New passphrase of ops:alice", "Passphrase of ops:alice"]


def test_what_cannot_be_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="it is empty"):
        known_passphrase("orders", file=tmp_path / "empty", fd=None)
    with pytest.raises(UsageError, match="say one of them"):
        known_passphrase("orders", file=tmp_path / "empty", fd=0)
    with pytest.raises(UsageError, match="its first line is the passphrase"):
        known_passphrase("orders", file=None, fd=descriptor(b""))
    with pytest.raises(UsageError, match="open it, as in 3<words"):
        known_passphrase("orders", file=None, fd=999)
    with pytest.raises(UsageError, match="nobody is at the terminal"):
        known_passphrase("orders", file=None, fd=None)
    with pytest.raises(UsageError, match="needs a passphrase"):
        new_passphrase("ops:alice", file=None, fd=None, ask=True)
