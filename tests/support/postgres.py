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

__all__ = ["POSTGRES_HINT", "find_postgres_folder", "run_postgres"]

POSTGRES_HINT: Final = (
    "no PostgreSQL here: install it (Debian: `apt-get install postgresql`) or set MESSAGING_TEST_POSTGRES "
    "to a server such as postgresql://user:password@host/name"
)
_PACKAGE_FOLDERS: Final = Path("/usr/lib/postgresql")
_TIMEOUT_S: Final = 60.0


def find_postgres_folder() -> Path | None:
    """Return the folder with `initdb` and `pg_ctl`, of the newest version; None when PostgreSQL is not installed."""
    packaged = sorted(_PACKAGE_FOLDERS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if packaged:
        return packaged[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


@contextmanager
def run_postgres() -> Iterator[str]:
    """Run a private server for the time of the block and give its URL.

    Raises:
        RuntimeError: it is not installed or did not start; the message carries the end of its log.
    """
    programs = find_postgres_folder()
    if programs is None:
        raise RuntimeError(POSTGRES_HINT)
    # Not below pytest's folders: those are closed to the user `postgres`.
    folder = Path(tempfile.mkdtemp(prefix="messaging-postgres-"))
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        port = free_port()
        _run(programs / "initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", folder / "data")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        log = folder / "server.log"
        _run(programs / "pg_ctl", "-D", folder / "data", "-l", log, "-w", "-t", "30", "-o", options, "start")
        guard = _start_guard(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
        try:
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
        finally:
            guard.kill()
            guard.communicate()
            _run(programs / "pg_ctl", "-D", folder / "data", "-w", "-t", "30", "-m", "immediate", "stop")
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
