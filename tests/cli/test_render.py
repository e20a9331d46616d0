"""What reaches a terminal: never a control byte of a message, never its markup (hostile strings)."""

import io
import json
import sys
import unicodedata

import pytest

from messaging.cli.render import (
    counted,
    escaped,
    json_line,
    json_text,
    line,
    plain_line,
    print_json,
    problem,
    shown_age,
    shown_time,
    table,
    text,
)

pytestmark = pytest.mark.attack(86)

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "a\rb",
    "a\nb",
    "\x9b31m",
    "\x7f\x00\x08",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u200b\ufeff",
    "\u2028",
    "\ud800",
    "\ue000",
    "[bold red]markup[/]",
    ":skull:",
]


def harmful(shown: str) -> set[str]:
    """Return the characters, line feeds apart, that a terminal might act upon."""
    return {char for char in shown if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}


class TestEscaping:
    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_no_control_character_survives(self, hostile: str) -> None:
        assert harmful(escaped(hostile)) == set()
        assert "\n" not in escaped(hostile)

    def test_ordinary_text_of_any_language_is_left_alone(self) -> None:
        assert escaped("Zürich, 東京, ошибка, 100 €") == "Zürich, 東京, ошибка, 100 €"

    def test_escapes_say_what_was_there(self) -> None:
        assert escaped("\x1b\r\u202e\U000e0001") == "\\x1b\\r\\u202e\\U000e0001"

    def test_line_feeds_stay_where_asked_for(self) -> None:
        assert escaped("a\nb\x1b", multiline=True) == "a\nb\\x1b"


class TestPrinting:
    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_every_way_out_is_safe(self, hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
        line("said: ", hostile)
        plain_line(hostile)
        table(hostile, ["column"], [[hostile], [text(hostile)]])
        print_json({"value": hostile})
        problem(hostile, remedy=hostile)

        out, err = capsys.readouterr()
        assert harmful(out + err) == set()

    def test_markup_is_shown_as_it_came(self, capsys: pytest.CaptureFixture[str]) -> None:
        line("[bold red]x[/]")
        table("", ["column"], [["[bold]y[/]"]])

        shown = capsys.readouterr().out
        assert "[bold red]x[/]" in shown
        assert "[bold]y[/]" in shown

    def test_a_table_in_a_pipe_is_not_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        table("", ["a", "b"], [["x" * 100, "y" * 90]])

        assert f"{'x' * 100}  {'y' * 90}" in capsys.readouterr().out

    def test_an_error_is_one_line_on_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        problem("first\nsecond " + "long " * 100)

        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("error: first second long")

    def test_a_terminal_of_another_encoding_gets_escapes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
        monkeypatch.setattr(sys, "stdout", stream)

        line("Zürich")

        stream.flush()
        assert stream.buffer.getvalue() == b"Z\\xfcrich\n"


class TestJson:
    def test_it_is_pure_ascii_without_control_characters_and_loads_again(self) -> None:
        shown = json_text({"value": "".join(HOSTILE)})

        assert shown.isascii()
        assert harmful(shown) == set()
        assert json.loads(shown) == {"value": "".join(HOSTILE)}

    def test_what_json_cannot_say_becomes_text_or_null(self) -> None:
        assert json.loads(json_text({"raw": b"\xff", "nan": float("nan"), "odd": object})) == {
            "raw": "_w==",
            "nan": None,
            "odd": "<class 'object'>",
        }


def test_times_are_utc_and_a_claim_beyond_any_calendar_is_shown_as_it_came() -> None:
    assert shown_time(0) == "1970-01-01 00:00:00Z"
    assert shown_time(None) == "-"
    assert shown_time(10**18) == f"{10**18} ms"


def test_ages_use_their_largest_unit() -> None:
    assert [shown_age(seconds) for seconds in (5, 90, 7200, 200_000)] == ["5 s", "2 min", "2 h", "2 d"]


@pytest.mark.parametrize(("count", "words"), [(0, "0 dead letters"), (1, "1 dead letter"), (2, "2 dead letters")])
def test_a_number_agrees_with_its_noun(count: int, words: str) -> None:
    assert counted(count, "dead letter") == words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_json_in_one_line_is_one_line_of_ascii(hostile: str) -> None:
    shown = json_line({"text": hostile, "bytes": b"\xff"})

    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["text"] == hostile
