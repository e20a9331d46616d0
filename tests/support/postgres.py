"""A private PostgreSQL of the installed package: its own data folder and port on the loopback interface.

It runs as the user `postgres` when the tests run as root, because the server refuses root. It is made once per run and
ends with it. `MESSAGING_TEST_POSTGRES` names a server to use instead.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from messaging.cli.broker_probe import free_port

__all__ = ["POSTGRES_HINT", "PrivatePostgres", "find_postgres_folder", "run_postgres", "run_private_postgres"]

POSTGRES_HINT: Final = (
    "no PostgreSQL here: install it (Debian: `apt-get install postgresql`) or set MESSAGING_TEST_POSTGRES "
    "to a server such as postgresql://user:password@host/name"
)
_PACKAGE_FOLDERS: Final = Path("/usr/lib/postgresql")
_TIMEOUT_S: Final = 180.0


def find_postgres_folder() -> Path | None:
    """Return the folder with `initdb` and `pg_ctl`, of the newest version; None when PostgreSQL is not installed."""
    packaged = sorted(_PACKAGE_FOLDERS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if packaged:
        return packaged[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


class PrivatePostgres:
    """A server with its own data and port, which may be killed and started again.

    Args:
        programs: Folder of `initdb` and `pg_ctl`.
        folder: Home of everything it writes.
        is_durable: Whether a commit waits for the disk, as it must in earnest.
    """

    def __init__(self, programs: Path, folder: Path, *, is_durable: bool = False) -> None:
        self._fsync = "on" if is_durable else "off"
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        _run(programs / "initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", folder / "data")

    @property
    def url(self) -> str:
        """Its address."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= -c fsync={self._fsync}"
        )
        log = self._folder / "server.log"
        self._control("-l", log, "-o", options, "start")
        self._guard = _start_guard(int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0]))

    def stop(self) -> None:
        """End it at once: sessions break, what was not committed is gone."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: object) -> None:
        _run(self._programs / "pg_ctl", "-D", self._folder / "data", "-w", "-t", "120", *arguments)


@contextmanager
def run_postgres(*, is_durable: bool = False) -> Iterator[str]:
    """Run a private server for the time of the block and give its URL.

    Raises:
        RuntimeError: it is not installed or did not start; the message carries the end of its log.
    """
    with run_private_postgres(is_durable=is_durable) as server:
        yield server.url


@contextmanager
def run_private_postgres(*, is_durable: bool = False) -> Iterator[PrivatePostgres]:
    """As `run_postgres`, and give the server itself, to be killed and started again."""
    programs = find_postgres_folder()
    if programs is None:
        raise RuntimeError(POSTGRES_HINT)
    # Not below pytest's folders: those are closed to the user `postgres`.
    folder = Path(tempfile.mkdtemp(prefix="messaging-postgres-"))
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        server = PrivatePostgres(programs, folder, is_durable=is_durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_guard(pid: int) -> subprocess.Popen[bytes]:
    # A pipe closes however this process ends, SIGKILL included; only then the guard's `read` returns.
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -QUIT "$1"', "guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _run(program: Path, *arguments: object) -> None:
    # The server that `pg_ctl` starts keeps its streams, so they must be no pipe that somebody reads to its end.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(program), *map(str, arguments)],
            user="postgres" if os.geteuid() == 0 else None,
            group="postgres" if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{program.name} failed: {output.read()[-2000:]}")
