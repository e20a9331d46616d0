"""Lines for people and for machines; never on stdout, never with control characters."""

import json
import logging
import sys
from pathlib import Path

import pytest
import structlog

from messaging.cli.logs import LogFormat, LogLevel, configure_logs, verb_logs


def test_json_lines_hold_what_was_bound_and_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, LogLevel.INFO, worker=3)

    structlog.get_logger().info("service.started", service="orders")
    logging.getLogger("theirs").warning("old style %s", "words")

    out, err = capsys.readouterr()
    ours, theirs = (json.loads(line) for line in err.splitlines())
    assert out == ""
    assert (ours["event"], ours["service"], ours["level"], ours["worker"]) == ("service.started", "orders", "info", 3)
    assert (theirs["event"], theirs["logger"], theirs["worker"]) == ("old style words", "theirs", 3)


@pytest.mark.attack(86)
def test_console_lines_show_control_characters_instead_of_obeying_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.CONSOLE, LogLevel.INFO)

    structlog.get_logger().error("delivery.buried", reason="\x1b[2Jgone\nfake line", fields=["\x07"], count=2)

    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert err.count("\n") == 1
    assert "gone" in err


def test_tracebacks_hold_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, LogLevel.INFO)

    def fail() -> None:
        password = "very-secret"
        raise ValueError(len(password))

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("delivery.failed")

    err = capsys.readouterr().err
    assert "ValueError: 11" in err
    assert "locals" not in err


def test_levels_hold_back_what_is_less_important(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.CONSOLE, LogLevel.WARNING)

    structlog.get_logger().info("service.started")
    structlog.get_logger().warning("transport.lost")

    assert "service.started" not in (err := capsys.readouterr().err)
    assert "transport.lost" in err


def test_the_client_library_is_heard_at_debug_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.CONSOLE, LogLevel.INFO)
    logging.getLogger("aiormq.connection").error("as the transport has said")
    assert capsys.readouterr().err == ""

    configure_logs(LogFormat.CONSOLE, LogLevel.DEBUG)
    logging.getLogger("aiormq.connection").error("in all detail")
    assert "in all detail" in capsys.readouterr().err


def test_verbs_are_quiet_but_for_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with verb_logs(is_verbose=False, file=None):
        structlog.get_logger().warning("dead_letter.discarded")
    assert capsys.readouterr() == ("", "")

    with verb_logs(is_verbose=True, file=None):
        structlog.get_logger().info("dead_letter.replayed")
    assert "dead_letter.replayed" in capsys.readouterr().err


def test_verbs_may_keep_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record"
    record.write_text("before\n")

    with verb_logs(is_verbose=False, file=record):
        structlog.get_logger().info("dead_letter.replayed", id="ab")
    structlog.get_logger().info("service.stopped")

    lines = record.read_text().splitlines()
    assert lines[0] == "before"
    assert [json.loads(line)["id"] for line in lines[1:]] == ["ab"]
    assert capsys.readouterr() == ("", "")


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()

    configure_logs(LogFormat.CONSOLE, LogLevel.INFO)
    structlog.get_logger().info("service.started")

    assert "\x1b" not in capsys.readouterr().err
