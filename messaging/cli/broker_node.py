"""`PrivateNode`: a RabbitMQ node of the installed `rabbitmq-server`, with its own ports, data and processes.

For development, demonstrations and tests: it shares nothing with a system broker or with another private node. Rules:

- Everything it writes is under one folder; its cookie and `HOME` too.
- It listens on 127.0.0.1 only, for AMQP as for Erlang's own traffic, and brings its own port mapper (`epmd`): the usual
  one listens on every interface, belongs to whoever started a node first, and outlives them all.
- Its host is `localhost`, so neither the machine's name nor its domain matters.
- It runs the scripts below the packages' wrapper, which insists on root and on the system's folders.
- It ends with the process that started it, however that ends, unless it is started detached; then the files in its
  folder are enough to find and stop it.

Example:
    node = PrivateNode(Path(".broker"), port=5673, name="development")
    node.start()
    print(node.url, node.ctl("list_queues"))
    node.stop()
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from messaging.cli.broker_probe import LOOPBACK, accepts, free_port, is_process, read_pid, require_free, speaks_amqp
from messaging.errors import ConfigurationError

__all__ = ["PrivateNode", "find_server_folder", "free_port"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_PROGRAMS: Final = ("rabbitmq-server", "rabbitmqctl")
# Where packages keep the scripts that their wrappers in PATH call: Debian, Ubuntu, Fedora.
_PACKAGE_FOLDERS: Final = (Path("/usr/lib/rabbitmq/bin"), Path("/usr/lib64/rabbitmq/bin"))
_POLL_S: Final = 0.05
# After a crash a queue may hand on what expired meanwhile before the next queue is there, and by default it tries again
# after three minutes.
_HAND_ON_AGAIN: Final = "-rabbit dead_letter_worker_publisher_confirm_timeout 10000"
# Erlang takes minutes to start on a very busy machine; whoever waits for it in vain sees the log before that.
_START_TIMEOUT_S: Final = 180.0
_CTL_TIMEOUT_S: Final = 180.0
_EPMD_TIMEOUT_S: Final = 30.0
_KILL_TIMEOUT_S: Final = 10.0
_REPORTED_LOG_LINES: Final = 12
_INSTALL_HINT: Final = (
    "install it (Debian: `apt-get install rabbitmq-server`), start one with Docker and set MESSAGING_BROKER_URL, "
    "or use the embedded broker (memory://)"
)


def find_server_folder() -> Path:
    """Return the folder with the scripts of the installed RabbitMQ.

    Raises:
        ConfigurationError: RabbitMQ or Erlang is not installed; the message says how to get a broker.
    """
    if shutil.which("erl") is None or shutil.which("epmd") is None:
        raise ConfigurationError(f"Erlang, which rabbitmq-server needs, is not installed: {_INSTALL_HINT}")
    for folder in _PACKAGE_FOLDERS:
        if all((folder / program).exists() for program in _PROGRAMS):
            return folder
    # `sbin` is where packages put their wrapper and where PATH of plain users does not look; the scripts of the
    # generic archive and of Homebrew are the real ones.
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise ConfigurationError(f"rabbitmq-server is not installed: {_INSTALL_HINT}")
    return Path(found).resolve().parent


class PrivateNode:
    """One node of the installed `rabbitmq-server`.

    Args:
        folder: Home of everything it writes; made when missing. Data stay there over restarts.
        port: AMQP port on 127.0.0.1.
        name: First part of the node's name; lower-case letters, digits, `_`, `-`.
    """

    def __init__(self, folder: Path, *, port: int, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"node name {name!r} must match {_NAME.pattern}")
        self.folder = folder.absolute()
        self.port = port
        self.name = name
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        # Tells our own process from a stranger that got the same process id after a reboot.
        self._tag = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]

    @classmethod
    def recorded(cls, folder: Path) -> "PrivateNode | None":
        """Return the node whose files are in this folder, running or not; None when there is none."""
        try:
            record = json.loads((folder / "node.json").read_text())
        except (OSError, ValueError):
            return None
        return cls(folder, port=record["port"], name=record["name"])

    @property
    def url(self) -> str:
        """AMQP address with the user that RabbitMQ admits from this machine only."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def node_name(self) -> str:
        """Erlang's name of the node."""
        return f"{self.name}@localhost"

    @property
    def pid(self) -> int | None:
        """Process id of the broker, or None when it does not run."""
        pid = read_pid(self._pid_file)
        return pid if pid is not None and is_process(pid, self._tag) else None

    @property
    def is_running(self) -> bool:
        """Whether the broker's process runs."""
        return self.pid is not None

    @property
    def is_ready(self) -> bool:
        """Whether the broker runs and answers AMQP."""
        return self.is_running and speaks_amqp(self.port)

    def start(self, timeout_s: float = _START_TIMEOUT_S, *, detached: bool = False) -> None:
        """Start the node and return once it answers AMQP. Running already is fine.

        Args:
            timeout_s: How long to wait, in seconds.
            detached: Outlive this process.

        Raises:
            ConfigurationError: RabbitMQ is not installed, the port is taken, or the node did not come up in time; the
                message carries the end of its log.
        """
        if self.is_running:
            self._await_ready(time.monotonic() + timeout_s)
            return
        deadline = time.monotonic() + timeout_s
        scripts = find_server_folder()
        # What a run that was cut off may have left behind, such as the port mapper of a broker that crashed.
        self.kill()
        require_free(self.port)
        self._write_files()
        try:
            self._start_epmd()
            self._spawn([str(scripts / "rabbitmq-server")], log="server.out")
            self._guard = self._start_guard()
            self._await_ready(deadline)
        except BaseException:
            self.kill()
            raise
        if detached:
            self._dismiss_guard()
            self._let_go()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the node in order; after `timeout_s` seconds by force. Not running is fine."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            self._wait_gone(pid, self._tag, timeout_s=timeout_s)
        self.kill()

    def kill(self) -> None:
        """End the node at once, as a power cut would (SIGKILL). Not running is fine."""
        self._dismiss_guard()
        for pid in {self.pid, *self._children}:
            self._kill_process(pid, self._tag)
        self._kill_process(read_pid(self._epmd_pid_file), "epmd")
        for path in (self._pid_file, self._epmd_pid_file):
            path.unlink(missing_ok=True)

    def restart(self, timeout_s: float = _START_TIMEOUT_S, *, detached: bool = False) -> None:
        """Stop the node in order and start it again on the same data.

        Raises:
            ConfigurationError: as `start`.
        """
        self.stop()
        self.start(timeout_s, detached=detached)

    def ctl(self, *args: str, timeout_s: float = _CTL_TIMEOUT_S) -> str:
        """Run `rabbitmqctl` against the node and return what it printed.

        Raises:
            ConfigurationError: the node does not run, or the command failed; the message carries its output.
        """
        if not self.is_running:
            raise ConfigurationError(f"private node {self.name!r} does not run; start it before `rabbitmqctl`")
        command = [str(find_server_folder() / "rabbitmqctl"), "-n", self.node_name, "-q", *args]
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise ConfigurationError(f"`rabbitmqctl {' '.join(args)}` took longer than {timeout_s} s") from exc
        if done.returncode != 0:
            raise ConfigurationError(f"`rabbitmqctl {' '.join(args)}` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    @property
    def _pid_file(self) -> Path:
        return self.folder / "node.pid"

    @property
    def _epmd_pid_file(self) -> Path:
        return self.folder / "epmd.pid"

    @property
    def _log_folder(self) -> Path:
        return self.folder / "log"

    def _write_files(self) -> None:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(16))
            # Erlang refuses a cookie that others may read.
            cookie.chmod(0o400)
        # Nobody listens on any of the three yet: the system may well give one of them twice.
        dist_port = free_port(besides={self.port})
        epmd_port = free_port(besides={self.port, dist_port})
        record = {"name": self.name, "port": self.port, "dist_port": dist_port, "epmd_port": epmd_port}
        (self.folder / "node.json").write_text(json.dumps(record))
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            "loopback_users.guest = true\n"
            "log.file.level = info\n"
            "disk_free_limit.absolute = 50MB\n"
            # The log that quorum queues share; the default of 512 MB is sized for servers.
            "raft.wal_max_size_bytes = 67108864\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        # Read instead of the system's own, which would win over the variables below.
        (self.folder / "rabbitmq-env.conf").write_text("")
        for path in (self._pid_file, self._epmd_pid_file):
            path.unlink(missing_ok=True)

    def _environment(self) -> dict[str, str]:
        record = json.loads((self.folder / "node.json").read_text())
        loopback_only = "-kernel inet_dist_use_interface {127,0,0,1}"
        folders = {str(Path(found).parent) for program in ("erl", "epmd") if (found := shutil.which(program))}
        # A fresh environment: no variable of the caller's shell may bend the node.
        return {
            "PATH": os.pathsep.join([*sorted(folders), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(record["epmd_port"]),
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(record["dist_port"]),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._log_folder),
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback_only} {_HAND_ON_AGAIN} -private_node {self._tag}",
            "RABBITMQ_CTL_ERL_ARGS": loopback_only,
            # Makes the script become the broker instead of staying as its parent, so signals reach the broker itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _spawn(self, command: list[str], *, log: str) -> subprocess.Popen[bytes]:
        with (self._log_folder / log).open("wb") as output:
            child = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Out of reach of the terminal: Ctrl-C is for the program that uses the broker, not for the broker.
                start_new_session=True,
            )
        self._children[child.pid] = child
        return child

    def _start_epmd(self) -> None:
        port = int(self._environment()["ERL_EPMD_PORT"])
        program = shutil.which("epmd") or "epmd"
        child = self._spawn([program, "-address", LOOPBACK, "-port", str(port)], log="epmd.out")
        self._epmd_pid_file.write_text(str(child.pid))
        deadline = time.monotonic() + _EPMD_TIMEOUT_S
        while not accepts(port):
            if time.monotonic() > deadline or child.poll() is not None:
                raise ConfigurationError(f"Erlang's port mapper did not start: {self._log_tail('epmd.out')}")
            time.sleep(_POLL_S)

    def _start_guard(self) -> subprocess.Popen[bytes]:
        # A pipe closes however this process ends, SIGKILL included; only then the guard's `read` returns.
        pids = [str(pid) for pid in self._children]
        return subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -TERM "$@"', "guard", *pids],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _let_go(self) -> None:
        for child in self._children.values():
            # Declared finished, or Python warns of a running child when the object goes.
            child.returncode = 0
        self._children.clear()

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate(timeout=_KILL_TIMEOUT_S)

    def _await_ready(self, deadline: float) -> None:
        while not self.is_ready:
            if any(child.poll() is not None for child in self._children.values()):
                raise ConfigurationError(f"private node {self.name!r} ended while starting: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise ConfigurationError(f"private node {self.name!r} was not ready in time: {self._log_tail()}")
            time.sleep(_POLL_S)

    def _kill_process(self, pid: int | None, mark: str) -> None:
        if pid is None or not (pid in self._children or is_process(pid, mark)):
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._wait_gone(pid, mark, timeout_s=_KILL_TIMEOUT_S)

    def _wait_gone(self, pid: int, mark: str, *, timeout_s: float) -> None:
        child = self._children.get(pid)
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout_s)
                del self._children[pid]
            return
        deadline = time.monotonic() + timeout_s
        while is_process(pid, mark) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _log_tail(self, name: str = "server.out") -> str:
        lines = (self._log_folder / name).read_text(errors="replace").splitlines() or ["its log is empty"]
        return "\n".join([f"see {self._log_folder}", *lines[-_REPORTED_LOG_LINES:]])
