"""The audit stream as an operator meets it: made on purpose, written by every act, read back with proofs."""

import asyncio
import json

import pytest

from messaging.core.sealed import Label, Route
from messaging.operators import open_operator
from messaging.settings import Settings
from tests.support.dead_shop import bury, clear
from tests.support.installation import Installation
from tests.support.sealing import as_sealed

pytestmark = pytest.mark.broker


@pytest.fixture
def audited(running: Installation) -> Installation:
    clear(running)
    made = running.call("topology", "apply", "shop:shop", "--audit")
    assert made.exit_code == 0, made.stderr
    return running


def records(installation: Installation, *arguments: str) -> list[dict[str, object]]:
    result = installation.call("audit", "list", "--json", *arguments)
    assert result.exit_code in (0, 1), result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def test_without_a_stream_it_says_how_to_make_one(quiet: Installation) -> None:
    result = quiet.call("audit", "list")

    assert result.exit_code == 5
    assert "topology apply --audit" in result.stderr


def test_every_act_is_recorded_signed_with_who_why_and_which(audited: Installation) -> None:
    before = len(records(audited))
    one, two, three = bury(audited, "one", "two", "three")
    (audited.folder / "mended").touch()

    audited.call("dead", "replay", one[:20], two[:20], "--reason", "fixed in 1.4", "--yes")
    audited.call("dead", "discard", three[:20], "--reason", "worthless", "--yes")
    audited.call("dead", "replay", "shop", "--reason", "a look", "--dry-run")

    found = records(audited)[before:]
    assert found[0]["act"] == "replay.begun"
    acts = {str(record["act"]) for record in found}
    assert acts == {"replay.begun", "replayed", "replay.ended", "discard.begun", "discarded", "discard.ended"}
    assert {record["proof"] for record in found} == {"signed"}
    assert {record["by"] for record in found} == {"ops:dev"}
    replayed = [letter for record in found if record["act"] == "replayed" for letter in record["letters"]]  # type: ignore[attr-defined]
    assert {letter["id"] for letter in replayed} == {one, two}
    discarded = [letter for record in found if record["act"] == "discarded" for letter in record["letters"]]  # type: ignore[attr-defined]
    assert [letter["id"] for letter in discarded] == [three]
    assert {record["reason"] for record in found} == {"fixed in 1.4", "worthless"}
    ended = next(record for record in found if record["act"] == "replay.ended")
    assert (ended["looked_at"], ended["done"], ended["failed"]) == (3, 2, 0)


def test_a_list_is_read_by_people_and_can_be_narrowed(audited: Installation) -> None:
    bury(audited, "x")
    audited.call("dead", "discard", "shop", "--reason", "tidy", "--yes")

    shown = audited.call("audit", "list", "--service", "shop", "--younger-than", "1h", "--limit", "3")

    assert shown.exit_code == 0, shown.stderr
    assert "discard.ended" in shown.stdout
    assert "tidy" in shown.stdout
    assert records(audited, "--service", "nowhere") == []
    assert records(audited, "--operator", "ops:mallory") == []
    assert audited.call("audit", "list", "--service", "nowhere").stdout == "No records.\n"


def test_what_a_stranger_writes_is_shown_as_unproven(audited: Installation) -> None:
    async def write() -> None:
        settings = Settings(broker_url=audited.broker_url, keys=audited.keys, namespace=audited.namespace)
        async with open_operator(settings, "ops:dev") as operator:
            await operator.dead_letters._audit._stream.attest({"act": "replayed", "operator": "ops:dev"})
            body = b"x" * 64 + b'{"v":1,"realm":"r","by":"ops:dev","kid":"0000000000000000","fields":{}}'
            await operator.transport.publish(
                as_sealed(body),
                Route(exchange=operator.names.audit, routing_key=""),
                Label(message_id="1", type="audit"),
                timeout_s=5.0,
            )

    asyncio.run(write())

    result = audited.call("audit", "list")
    assert result.exit_code == 1
    assert "1 record proved nothing" in result.stderr
    assert "no record" in result.stdout
