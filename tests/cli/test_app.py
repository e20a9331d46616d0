"""The program as a whole: help, version, start-up, and how failures look to the one who typed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from messaging.cli.app import main
from tests.support.installation import Installation

VERBS = [
    (),
    ("run",),
    ("send",),
    ("publish",),
    ("request",),
    ("health",),
    ("doctor",),
    ("dead",),
    ("dead", "list"),
    ("dead", "groups"),
    ("dead", "show"),
    ("dead", "replay"),
    ("dead", "discard"),
    ("keys",),
    ("keys", "generate"),
    ("keys", "show"),
    ("trust",),
    ("trust", "init"),
    ("trust", "show"),
    ("topology",),
    ("topology", "show"),
    ("topology", "apply"),
    ("broker",),
    ("broker", "up"),
    ("broker", "down"),
    ("broker", "status"),
]


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_explains_itself(self, offline: Installation, verb: tuple[str, ...]) -> None:
        result = offline.call(*verb, "--help")

        assert result.exit_code == 0
        assert "Usage: messaging" in result.stdout

    @pytest.mark.parametrize(
        "verb",
        [
            verb
            for verb in VERBS
            if verb not in {(), ("dead",), ("keys",), ("trust",), ("topology",)} and verb[0] != "broker"
        ],
    )
    def test_every_verb_shows_an_example(self, offline: Installation, verb: tuple[str, ...]) -> None:
        assert f"Example: messaging {' '.join(verb)}" in " ".join(offline.call(*verb, "--help").stdout.split())

    def test_the_program_alone_prints_its_help(self, offline: Installation) -> None:
        assert "Commands" in offline.call().output

    def test_version(self, offline: Installation) -> None:
        result = offline.call("--version")

        assert result.exit_code == 0
        assert result.stdout.startswith("messaging ")

    def test_an_unknown_verb_is_a_usage_error(self, offline: Installation) -> None:
        assert offline.call("dead", "lst").exit_code == 2


class TestStartUp:
    def test_the_entry_point_ends_with_the_exit_code(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["messaging", "--version"])

        with pytest.raises(SystemExit) as ended:
            main()

        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("messaging ")

    def test_the_program_loads_neither_services_nor_web_frameworks(self) -> None:
        loaded = subprocess.run(
            [sys.executable, "-c", "import sys, messaging.cli.app; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.split()

        assert not {"alembic", "aiosqlite", "asyncpg", "fastapi", "sqlalchemy", "uvicorn", "services", "httpx"} & set(
            loaded
        )


class TestFailures:
    def test_an_unreachable_broker(self, offline: Installation) -> None:
        result = offline.run("dead", "list", changes={"MESSAGING_CONNECT_TIMEOUT_S": "0.3"})

        assert result.returncode == 3
        assert result.stderr.startswith("error: no broker at 127.0.0.1:")
        assert "messaging broker up" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_missing_trust_bundle(self, offline: Installation) -> None:
        (offline.keys / "trust.bundle").unlink()

        result = offline.run("run", "shop:shop")

        assert result.returncode == 2
        assert result.stderr.startswith("error: no trust bundle at ")
        assert result.stderr.count("\n") == 1

    def test_a_key_file_that_others_may_read(self, offline: Installation) -> None:
        (offline.keys / "ops.dev.key").chmod(0o644)

        result = offline.call("dead", "list")

        assert result.exit_code == 2
        assert "chmod 600" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_missing_key_file(self, offline: Installation) -> None:
        result = offline.call("dead", "list", "--as", "ops:nobody")

        assert result.exit_code == 2
        assert "ops.nobody.key" in result.stderr

    def test_settings_that_cannot_be_read(self, offline: Installation) -> None:
        result = offline.call("dead", "list", changes={"MESSAGING_PREFETCH": "many"})

        assert result.exit_code == 2
        assert "prefetch" in result.stderr

    @pytest.mark.broker
    def test_a_wrong_password(self, quiet: Installation) -> None:
        scheme, _, rest = quiet.broker_url.partition("://")
        wrong = f"{scheme}://guest:secret-word@{rest.rpartition('@')[2]}"

        result = quiet.run("dead", "list", changes={"MESSAGING_BROKER_URL": wrong})

        assert result.returncode == 2
        assert "refuses user 'guest'" in result.stderr
        assert "secret-word" not in result.stderr
        assert result.stderr.count("\n") == 1

    def test_debug_shows_the_traceback(self, offline: Installation) -> None:
        result = offline.run("--debug", "dead", "list", changes={"MESSAGING_KEYS": str(offline.folder / "none")})

        assert result.returncode == 1
        assert "Traceback" in result.stderr
        assert "ConfigurationError" in result.stderr or "UsageError" in result.stderr

    def test_a_module_that_cannot_be_imported_is_told_in_one_line_with_its_place(self, offline: Installation) -> None:
        (offline.folder / "broken.py").write_text("raise RuntimeError('oh')")

        result = offline.run("run", "broken:service")

        assert result.returncode == 2
        assert "RuntimeError: oh (broken.py:1)" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_defect_in_a_verb_keeps_its_traceback(
        self, offline: Installation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_target: str) -> NoReturn:
            raise RuntimeError("oh")

        monkeypatch.setattr("messaging.cli.topology.load_service", broken)

        assert isinstance(offline.call("topology", "show", "shop:shop").exception, RuntimeError)

    def test_a_closed_pipe_is_no_failure_to_speak_of(self, offline: Installation) -> None:
        shown = offline.spawn("topology", "show", "shop:shop")
        assert shown.stdout is not None
        assert shown.stderr is not None
        shown.stdout.close()

        shown.wait(timeout=30)

        assert "Traceback" not in shown.stderr.read()
        shown.stderr.close()

    def test_a_log_file_keeps_lines_and_a_bad_one_is_named(self, offline: Installation) -> None:
        log = offline.folder / "log"
        assert offline.call("--log-file", str(log), "topology", "show", "shop:shop").exit_code == 0
        assert log.exists()

        result = offline.call("--log-file", str(Path("/nowhere/log")), "topology", "show", "shop:shop")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: /nowhere/log: No such file")


class TestDocumentation:
    def test_every_option_stands_in_the_page(self, offline: Installation) -> None:
        page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
        options = {
            option
            for verb in VERBS
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", offline.call(*verb, "--help").stdout)
        }

        assert {option for option in options if option not in page} == set()

    def test_every_verb_stands_in_the_page(self) -> None:
        page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()

        assert [verb for verb in VERBS if " ".join(verb) not in page] == []
