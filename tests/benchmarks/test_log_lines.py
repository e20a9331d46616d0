import json

import pytest
import structlog

pytest.importorskip("matplotlib", reason="pictures are drawn with the extra `bench`")

from benchmarks.log_lines import FIELDS, WAYS, configured, document, logged, measure
from messaging.cli.logs import LogFormat, LogLevel


def test_every_way_has_its_cost_in_the_table() -> None:
    found = measure(lines=20, rounds=1)

    assert list(found) == list(WAYS)
    assert min(found.values()) > 0
    assert all(f"| {way} | {us} |" in document(found) for way, us in found.items())


def test_what_is_wanted_is_written_whole() -> None:
    with configured(LogLevel.DEBUG, LogFormat.JSON) as file:
        logged(structlog.get_logger())
        [line] = file.read_text().splitlines()

    written = json.loads(line)
    assert written["event"] == "delivery.handled"
    assert FIELDS.items() <= written.items()


@pytest.mark.parametrize("act", [act for level, _, act in WAYS.values() if level is LogLevel.INFO])
def test_what_is_unwanted_is_not(act: object) -> None:
    assert callable(act)
    with configured(LogLevel.INFO, LogFormat.JSON) as file:
        act(structlog.get_logger())
        assert file.read_text() == ""
