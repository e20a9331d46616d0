"""What set-up does about a broker on different machines: stand-ins for their programs, the real scripts."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import calls_of, write_program

SCRIPTS: Final = Path(__file__).resolve().parents[2] / "scripts"
# What the scripts need of any system.
SYSTEM: Final = ("sh", "cat", "dirname", "mktemp", "rm")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs that is the whole PATH: a Debian seen as root, with neither RabbitMQ nor Docker."""
    for name in SYSTEM:
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    write_program(tmp_path, "id", body="echo 0")
    write_program(tmp_path, "apt-get")
    return tmp_path


def ensure(
    machine: Path, *args: str, script: str = "ensure-broker.sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / script), *args],
        env={"PATH": str(machine), "TMPDIR": str(machine), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_installed_server_is_enough(machine: Path) -> None:
    for name in ("erl", "rabbitmq-server"):
        write_program(machine, name)

    done = ensure(machine)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls_of(machine, "apt-get") == []


def test_root_on_debian_gets_it_installed(machine: Path) -> None:
    done = ensure(machine)

    assert done.returncode == 0
    assert calls_of(machine, "apt-get") == [
        "update -qq",
        "install -y -qq --no-install-recommends rabbitmq-server",
    ]


def test_tests_without_a_way_to_a_broker_fail_with_the_remedy(machine: Path) -> None:
    write_program(machine, "id", body="echo 1000")

    done = ensure(machine)

    assert done.returncode == 1
    assert "apt-get install rabbitmq-server" in done.stderr
    assert "never skip" in done.stderr


def test_the_demo_without_a_way_to_a_broker_says_that_it_embeds_one(machine: Path) -> None:
    write_program(machine, "id", body="echo 1000")

    done = ensure(machine, "--optional")

    assert done.returncode == 0
    assert "embedded broker" in done.stdout


def test_a_failing_apt_get_shows_its_words(machine: Path) -> None:
    write_program(machine, "apt-get", body='echo "E: no network"; exit 100')

    done = ensure(machine)

    assert done.returncode == 1
    assert "E: no network" in done.stderr


def test_a_named_broker_is_enough_for_the_demo_but_not_for_the_tests(machine: Path) -> None:
    demo = ensure(machine, "--optional", MESSAGING_BROKER_URL="amqp://elsewhere/")
    after_demo = calls_of(machine, "apt-get")
    tests = ensure(machine, MESSAGING_BROKER_URL="amqp://elsewhere/")

    assert (demo.returncode, after_demo) == (0, [])
    assert tests.returncode == 0
    assert len(calls_of(machine, "apt-get")) == 2


@pytest.mark.parametrize(("engine", "installs"), [("exit 0", 0), ("exit 1", 2)])
def test_a_docker_engine_is_enough_for_the_demo_when_it_answers(machine: Path, engine: str, installs: int) -> None:
    write_program(machine, "docker", body=engine)

    done = ensure(machine, "--optional")

    assert done.returncode == 0
    assert len(calls_of(machine, "apt-get")) == installs


def test_a_system_without_apt_get_is_told_what_it_needs(machine: Path) -> None:
    (machine / "apt-get").unlink()

    done = ensure(machine, "rabbitmq-server", script="apt-install.sh")

    assert done.returncode == 1
    assert "rabbitmq-server" in done.stderr


def test_a_named_postgresql_is_enough(machine: Path) -> None:
    done = ensure(machine, script="ensure-postgres.sh", MESSAGING_TEST_POSTGRES="postgresql://elsewhere/")

    assert done.returncode == 0
    assert calls_of(machine, "apt-get") == []
