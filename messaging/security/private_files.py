"""Files that hold secrets: readable by their owner alone, never through a link, replaced as a whole (docs/trust.md).

A key file that others may read is not a secret any more, so it is refused with the command that mends it. A new one
appears complete or not at all: written beside its place, synced, then given its name.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from messaging.errors import ConfigurationError
from messaging.security.suite import fresh_bytes

__all__ = ["read_private", "write_file"]

PRIVATE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_MOST_BYTES: Final = 1 << 20
# O_NONBLOCK: a pipe in the place of a key file must not hang the start.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner, this user, may read.

    Raises:
        ConfigurationError: Missing, a link, no plain file, another owner, or open to others; with the remedy.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as exc:
        raise ConfigurationError(_why_not(path, exc)) from exc
    try:
        # What was opened is checked, not the name: nobody can exchange the file in between.
        _check(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_MOST_BYTES)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes, *, replace: bool = False, mode: int = PRIVATE_MODE) -> None:
    """Write a file that appears complete or not at all.

    Args:
        path: Its place; the folder exists.
        content: Everything in it.
        replace: Whether a file of that name may be there and is replaced.
        mode: Its permissions; secret by default.

    Raises:
        ConfigurationError: It is there already, or the folder does not let us write.
    """
    beside = path.with_name(f".{path.name}.{fresh_bytes(8).hex()}")
    try:
        descriptor = os.open(beside, _CREATE, PRIVATE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                beside.replace(path)
            else:
                # Unlike a rename, a link never replaces what is there, so no key is ever lost to a second run.
                path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError as exc:
        raise ConfigurationError(f"{path} exists already and is kept; move it away to make a new one") from exc
    except OSError as exc:
        raise ConfigurationError(f"cannot write {path}: {exc.strerror}; mend the folder's permissions") from exc


def _why_not(path: Path, exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return f"no key file at {path}; make one with `messaging keys generate` or `messaging trust init --dev`"
    if exc.errno == errno.ELOOP:
        return f"{path} is a symbolic link; put the key file itself there"
    return f"cannot read the key file {path}: {exc.strerror}; run the service as the file's owner"


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{path} is no plain file; put the key file itself there")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} belongs to user {found.st_uid} and this process runs as {os.geteuid()}; "
            f"run `chown {os.geteuid()} {path}`"
        )
    if found.st_mode & _OTHERS:
        raise ConfigurationError(
            f"{path} may be read by others (mode {stat.S_IMODE(found.st_mode):04o}); run `chmod 600 {path}`"
        )
    if found.st_size > _MOST_BYTES:
        raise ConfigurationError(f"{path} has {found.st_size} bytes and is no key file")


def _sync_folder(folder: Path) -> None:
    # The new name itself survives a power cut only once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
