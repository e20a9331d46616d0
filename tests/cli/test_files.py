"""Bytes in and out: files and streams, never text."""

import io
import sys
from pathlib import Path

import pytest

from messaging.cli import files
from messaging.cli.exits import UsageError
from messaging.cli.files import read_input, write_output
from messaging.errors import ConfigurationError

BYTES = bytes(range(256))


class Stream:
    """A standard stream with bytes below its text."""

    def __init__(self, content: bytes = b"") -> None:
        self.buffer = io.BytesIO(content)

    def flush(self) -> None:
        """Nothing waits."""


def test_files_hold_any_bytes(tmp_path: Path) -> None:
    write_output(tmp_path / "message.bin", BYTES)

    assert read_input(tmp_path / "message.bin") == BYTES
    with pytest.raises(ConfigurationError, match="exists already"):
        write_output(tmp_path / "message.bin", BYTES)


@pytest.mark.parametrize("path", [None, Path("-")])
def test_streams_hold_any_bytes(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", Stream(BYTES))

    write_output(path, BYTES)

    assert out.buffer.getvalue() == BYTES
    assert read_input(Path("-")) == BYTES


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 255)
    (tmp_path / "large").write_bytes(BYTES)

    with pytest.raises(UsageError, match="more than 255 bytes"):
        read_input(tmp_path / "large")
