"""Dead letters as an operator at 3 a.m. meets them: a real broker, a real service, a real terminal."""

import json
import signal

import pytest

from tests.cli.test_render import harmful
from tests.support.dead_shop import bury, clear, dead_ids
from tests.support.installation import Installation, until
from tests.support.terminal import Terminal

pytestmark = pytest.mark.broker

HOSTILE = "\x1b[2J\r\u202eoops [red]"


@pytest.fixture
def shop(running: Installation) -> Installation:
    clear(running)
    return running


class TestLooking:
    def test_nothing_is_dead(self, shop: Installation) -> None:
        assert shop.call("dead", "list").stdout == "No dead letters.\n"
        assert shop.call("dead", "groups").stdout == "No dead letters.\n"
        assert shop.json("dead", "list", "--json") == []

    def test_a_list_shows_the_decrypted_reason(self, shop: Installation) -> None:
        (found,) = bury(shop, "thrice")

        shown = shop.call("dead", "list", "shop").stdout

        assert "total must be positive thrice" in shown
        assert found[:16] in shown
        assert "shop.place_order/1" in shown

    def test_one_in_full_by_the_beginning_of_its_id(self, shop: Installation) -> None:
        (found,) = bury(shop, "in full")

        shown = shop.call("dead", "show", found[:8]).stdout
        record = shop.json("dead", "show", "shop", found, "--json")

        assert '"note": "in full"' in shown
        assert "shop.py" in shown
        assert record["payload"]["note"] == "in full"
        assert record["fault"]["error"] == "Reject"
        assert record["replayable"] is True

    def test_a_list_never_holds_payloads(self, shop: Installation) -> None:
        bury(shop, "x")

        assert "payload" not in shop.json("dead", "list", "--json")[0]

    def test_a_limit_lists_the_oldest_and_counts_the_others(self, shop: Installation) -> None:
        first, *_ = bury(shop, "first", "second", "third")

        result = shop.call("dead", "list", "--limit", "1", "--json")

        assert [letter["id"] for letter in json.loads(result.stdout)] == [first]
        assert "2 younger ones not shown" in result.stderr

    def test_one_is_one(self, shop: Installation) -> None:
        bury(shop, "alone")

        assert "1 dead letter; one in full" in shop.call("dead", "list").stdout

    def test_letters_that_failed_alike_are_one_group(self, shop: Installation) -> None:
        bury(shop, "one", "two")

        (found,) = shop.json("dead", "groups", "--json")

        assert (found["count"], found["service"], found["error"]) == (2, "shop", "Reject")
        assert found["fingerprint"] in shop.call("dead", "groups").stdout
        assert len(shop.json("dead", "list", "--group", found["fingerprint"], "--json")) == 2
        assert shop.json("dead", "list", "--group", "0" * 16, "--json") == []

    @pytest.mark.parametrize(
        ("filters", "count"),
        [
            (("--name", "shop.place_order"), 1),
            (("--name", "shop.forget"), 0),
            (("--error", "Reject"), 1),
            (("--error", "ValueError"), 0),
            (("--sender", "ops:dev"), 1),
            (("--sender", "users"), 0),
            (("--older-than", "10m"), 0),
            (("--younger-than", "10m"), 1),
        ],
    )
    def test_filters(self, shop: Installation, filters: tuple[str, ...], count: int) -> None:
        if not dead_ids(shop):
            bury(shop, "filtered")

        assert len(shop.json("dead", "list", "--json", *filters)) == count

    @pytest.mark.attack(86)
    def test_no_control_byte_of_a_message_reaches_the_terminal(self, shop: Installation) -> None:
        (found,) = bury(shop, HOSTILE)

        for arguments in (("list",), ("groups",), ("show", found), ("list", "--json"), ("show", found, "--json")):
            shown = shop.call("dead", *arguments).output
            assert harmful(shown) == set()
            assert "oops [red]" in shown

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("show", "00000000"), 5, "no dead letter"),
            (("show", "shop"), 2, "by the id"),
            (("show", "zz"), 2, "neither a service"),
            (("list", "nobody"), 2, "neither a service"),
            (("list", "--older-than", "long"), 2, "no age"),
        ],
    )
    def test_what_does_not_exist(self, shop: Installation, arguments: tuple[str, ...], code: int, words: str) -> None:
        result = shop.call("dead", *arguments)

        assert result.exit_code == code
        assert words in result.stderr

    def test_an_applied_topology_has_an_empty_dead_letter_queue(self, quiet: Installation) -> None:
        quiet.call("topology", "apply", "shop:shop")

        assert quiet.call("dead", "list", "shop").stdout == "No dead letters.\n"

    def test_a_service_that_never_ran_is_told_apart_from_an_empty_queue(self, quiet: Installation) -> None:
        assert quiet.call("dead", "list").exit_code == 0
        result = quiet.call("dead", "list", "shop")

        assert result.exit_code == 2
        assert "has not yet started here" in result.stderr


class TestReplay:
    def test_a_mended_service_takes_them(self, shop: Installation) -> None:
        bury(shop, "one", "two")
        (shop.folder / "mended").touch()

        result = shop.call("dead", "replay", "shop", "--yes", "--reason", "mended")

        assert result.exit_code == 0, result.stderr
        assert result.stdout == "shop: replayed 2, 0 failed, 0 stay dead\n"
        assert dead_ids(shop) == []

    def test_an_unmended_one_buries_them_again_with_their_history(self, shop: Installation) -> None:
        bury(shop, "again")

        assert shop.call("dead", "replay", "shop", "--yes", "--reason", "hope").exit_code == 0

        until(lambda: len(dead_ids(shop)) == 1, what="buried again")
        (letter,) = shop.json("dead", "list", "--json")
        assert letter["fault"]["replays"] == 1
        assert letter["fault"]["attempts"] == 2

    def test_a_dry_run_changes_nothing(self, shop: Installation) -> None:
        before = bury(shop, "one", "two")

        result = shop.call("dead", "replay", "shop", "--dry-run", "--reason", "look")

        assert result.exit_code == 0
        assert "would replay 2" in result.stdout
        assert dead_ids(shop) == before

    def test_one_by_id_a_canary_and_a_limit(self, shop: Installation) -> None:
        first, *_ = bury(shop, "one", "two", "three", "four")
        (shop.folder / "mended").touch()

        assert shop.call("dead", "replay", first, "--yes", "--reason", "x").stdout.startswith("shop: replayed 1,")
        assert shop.call("dead", "replay", "shop", "--canary", "1", "--yes", "--reason", "x").exit_code == 0
        assert shop.call("dead", "replay", "shop", "--limit", "1", "--yes", "--reason", "x").exit_code == 0
        assert len(dead_ids(shop)) == 1

    def test_the_result_as_json(self, shop: Installation) -> None:
        (found,) = bury(shop, "counted")
        (shop.folder / "mended").touch()

        (shown,) = shop.json("dead", "replay", found, "--yes", "--reason", "x", "--json")

        assert (shown["service"], shown["replayed"], shown["failed"], shown["dry_run"]) == ("shop", 1, 0, False)
        assert [letter["id"] for letter in shown["letters"]] == [found]

    def test_the_record_says_who_why_and_which(self, shop: Installation) -> None:
        (found,) = bury(shop, "recorded")
        (shop.folder / "mended").touch()
        record = shop.folder / "record"

        shop.call("--log-file", str(record), "dead", "replay", "shop", "--yes", "--reason", "for the record")

        lines = [json.loads(line) for line in record.read_text().splitlines()]
        (act,) = [line for line in lines if line["event"] == "dead_letter.replayed"]
        assert (act["id"], act["operator"], act["reason"]) == (found, "ops:dev", "for the record")

    @pytest.mark.parametrize("verb", ["replay", "discard"])
    def test_nothing_matched_is_exit_code_5(self, shop: Installation, verb: str) -> None:
        result = shop.call("dead", verb, "shop", "--yes", "--reason", "x")

        assert result.exit_code == 5
        assert "no dead letter matches in shop" in result.stderr

    @pytest.mark.parametrize("verb", ["replay", "discard"])
    def test_without_a_target_it_refuses(self, shop: Installation, verb: str) -> None:
        result = shop.call("dead", verb, "--yes", "--reason", "x")

        assert result.exit_code == 2
        assert f"say what to {verb}" in result.stderr

    @pytest.mark.parametrize("verb", ["replay", "discard"])
    def test_without_a_reason_in_words_it_refuses(self, shop: Installation, verb: str) -> None:
        result = shop.run("dead", verb, "shop", "--yes", "--reason", " ")

        assert result.returncode == 2
        assert "say why" in result.stderr

    @pytest.mark.parametrize("verb", ["replay", "discard"])
    def test_without_anybody_to_ask_it_refuses(self, shop: Installation, verb: str) -> None:
        result = shop.run("dead", verb, "shop", "--reason", "x")

        assert result.returncode == 2
        assert "--yes" in result.stderr


class TestDiscard:
    def test_what_is_named_is_gone_and_the_rest_stays(self, shop: Installation) -> None:
        first, second = bury(shop, "one", "two")

        result = shop.call("dead", "discard", first, "--yes", "--reason", "a test")

        assert result.exit_code == 0
        assert result.stdout == "shop: discarded 1, 1 stay dead\n"
        assert dead_ids(shop) == [second]

    def test_a_dry_run_changes_nothing(self, shop: Installation) -> None:
        before = bury(shop, "kept")

        (shown,) = shop.json("dead", "discard", "shop", "--dry-run", "--reason", "x", "--json")

        assert (shown["discarded"], shown["dry_run"]) == (1, True)
        assert "would discard 1" in shop.call("dead", "discard", "shop", "--dry-run", "--reason", "x").stdout
        assert dead_ids(shop) == before


class TestAtATerminal:
    def test_it_shows_what_and_asks_and_a_no_changes_nothing(self, shop: Installation) -> None:
        before = bury(shop, "asked")

        terminal = Terminal(shop, "dead", "replay", "shop", "--reason", "x")
        terminal.wait_for("Replay them (1)")
        terminal.type("n\n")

        assert terminal.end() == 1
        assert "total must be positive asked" in terminal.said
        assert "Nothing was done" in terminal.said
        assert dead_ids(shop) == before

    def test_a_yes_replays_with_a_progress_bar(self, shop: Installation) -> None:
        bury(shop, *(f"{number}" for number in range(12)))
        (shop.folder / "mended").touch()

        terminal = Terminal(shop, "dead", "replay", "shop", "--reason", "x")
        terminal.wait_for("Replay them (12)")
        terminal.type("y\n")

        assert terminal.end() == 0
        assert "and 2 more" in terminal.said
        assert "12/12" in terminal.said
        assert "replayed 12, 0 failed" in terminal.said
        assert dead_ids(shop) == []

    def test_ctrl_c_leaves_everything_replayed_or_dead_and_says_so(self, shop: Installation) -> None:
        bury(shop, *(f"{number}" for number in range(40)))
        (shop.folder / "mended").touch()

        terminal = Terminal(shop, "dead", "replay", "shop", "--reason", "x", "--yes", "--rate", "2")
        terminal.wait_for("3 replayed")
        terminal.process.send_signal(signal.SIGINT)

        assert terminal.end() == 130
        assert "are still dead" in terminal.said
        assert "Traceback" not in terminal.said
        replayed = int(terminal.said.rpartition("stopped: ")[2].split()[0])
        assert 3 <= replayed < 40
        # The broker returns what was held a moment after the connection is gone.
        until(lambda: len(dead_ids(shop)) == 40 - replayed, what="the rest is back")
