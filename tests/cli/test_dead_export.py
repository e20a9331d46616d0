"""Dead letters as lines of JSON."""

import json
from pathlib import Path

import pytest

from messaging.cli.dead_export import opened_for
from tests.support.dead_shop import bury, clear
from tests.support.installation import Installation

HOSTILE = "\x1b[2J\r\u202eoops"


def test_a_file_is_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    with opened_for(path) as file:
        file.write("kept\n")

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError), opened_for(path) as file:
        file.write("lost\n")
    assert path.read_text() == "kept\n"


@pytest.mark.broker
def test_each_letter_is_one_line_with_its_payload(running: Installation, tmp_path: Path) -> None:
    clear(running)
    ids = bury(running, "one", HOSTILE)
    path = tmp_path / "dead.jsonl"

    result = running.call("dead", "export", "shop", "-o", str(path))

    letters = [json.loads(line) for line in path.read_text().splitlines()]
    assert [letter["id"] for letter in letters] == ids
    assert [letter["payload"]["note"] for letter in letters] == ["one", HOSTILE]
    assert result.stdout == f"2 dead letters in {path}\n"
    assert running.call("dead", "export", "--error", "ValueError").stdout == ""
    assert running.call("dead", "export", "-o", str(path)).exit_code == 1
