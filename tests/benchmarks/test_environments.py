import hashlib
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import install, interpreter_of


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environments, "PINS", tmp_path)
    path = tmp_path / "peer.txt"
    path.write_text("no-such-distribution-anywhere==0.0.0\n")
    return path


def test_an_environment_that_is_there_is_left_alone(pins: Path, tmp_path: Path) -> None:
    home = tmp_path / "envs" / "peer"
    home.mkdir(parents=True)
    (home / ".installed").write_text(hashlib.sha256(pins.read_bytes()).hexdigest())

    assert install("peer", tmp_path / "envs") is None
    assert not interpreter_of("peer", tmp_path / "envs").exists()
