import os
from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging.security.private_files import read_private, write_file


def test_a_written_file_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "orders.key"

    write_file(path, b"secret")

    assert read_private(path) == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["orders.key"]


def test_a_public_file_has_the_mode_asked_for(tmp_path: Path) -> None:
    write_file(tmp_path / "trust.bundle", b"public", mode=0o644)

    assert (tmp_path / "trust.bundle").stat().st_mode & 0o777 == 0o644


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "orders.key"
    write_file(path, b"first")

    with pytest.raises(ConfigurationError, match="exists already"):
        write_file(path, b"second")
    kept = read_private(path)
    write_file(path, b"third", replace=True)

    assert kept == b"first"
    assert read_private(path) == b"third"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "orders.key"
    target.write_bytes(b"precious")
    path.symlink_to(target)

    write_file(path, b"secret", replace=True)

    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_file(tmp_path / "missing" / "orders.key", b"secret")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o601])
def test_a_file_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "orders.key"
    write_file(path, b"secret", mode=mode)

    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        read_private(path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "real.key", b"secret")
    (tmp_path / "orders.key").symlink_to(tmp_path / "real.key")

    with pytest.raises(ConfigurationError, match="symbolic link"):
        read_private(tmp_path / "orders.key")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="messaging keys generate"):
        read_private(tmp_path / "orders.key")


def test_a_path_through_a_file_is_unreadable(tmp_path: Path) -> None:
    write_file(tmp_path / "orders.key", b"secret")

    with pytest.raises(ConfigurationError, match="cannot read"):
        read_private(tmp_path / "orders.key" / "deeper")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    make(tmp_path / "orders.key", 0o600)  # type: ignore[operator]

    with pytest.raises(ConfigurationError, match="no plain file"):
        read_private(tmp_path / "orders.key")


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "orders.key"
    write_file(path, b"secret")
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)

    with pytest.raises(ConfigurationError, match="chown 12345"):
        read_private(path)


def test_a_huge_file_is_no_key_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.key"
    write_file(path, bytes((1 << 20) + 1))

    with pytest.raises(ConfigurationError, match="no key file"):
        read_private(path)
