"""The first draft of a realm, from public parts and contracts."""

from tests.support.ceremony import Ceremony


def test_it_follows_the_contracts_of_the_services(ceremony: Ceremony) -> None:
    policy = ceremony.content["policy"]

    assert [(rule["from"], rule["kind"], rule["name"]) for rule in policy["send"]] == [
        ("web", "command", "shop.place_order"),
        ("web", "request", "shop.get_order"),
    ]
    assert policy["subscribe"] == {"shop.order_placed": ["shop"]}
    assert {grant["operator"] for grant in policy["replay"]} == {"ops:alice"}


def test_a_closed_one_lets_nobody_send(ceremony: Ceremony) -> None:
    place = ceremony.home / "closed"

    said = ceremony.call(
        *("trust", "init", place, "--roots", ceremony.home / "trust.roots", "--closed"),
        *(*ceremony.parts, *ceremony.sources),
    )

    assert "may now send" not in said
    assert "ops:alice may now replay shop.* in shop" in said
    assert "messaging trust deny" in said


def test_a_second_bundle_is_made_by_changes(ceremony: Ceremony) -> None:
    said = ceremony.call("trust", "init", ceremony.trust, *ceremony.parts, code=2)

    assert "messaging trust add" in said


def test_without_roots_or_parts_it_says_where_they_come_from(ceremony: Ceremony) -> None:
    no_parts = ceremony.call("trust", "init", ceremony.home / "x", "--roots", ceremony.home / "trust.roots", code=2)
    no_roots = ceremony.call("trust", "init", ceremony.home / "x", *ceremony.parts, code=2)

    assert "messaging keys export" in no_parts
    assert "trust root pin" in no_roots
    assert not (ceremony.home / "x").exists()


def test_development_needs_services(ceremony: Ceremony) -> None:
    assert "--from MODULE:SERVICE" in ceremony.call("trust", "init", "--dev", ceremony.home / "dev", code=2)
