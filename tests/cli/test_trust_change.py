"""The draft of the next bundle, changed from the shell."""

from messaging.security.trust_folder import read_content
from tests.support.ceremony import Ceremony


def test_a_further_service_joins(ceremony: Ceremony) -> None:
    ceremony.call("keys", "generate", "billing", "--keys", ceremony.keys)
    ceremony.call("keys", "export", "billing", "--keys", ceremony.keys, "-o", ceremony.home / "billing.json")

    said = ceremony.change("add", ceremony.home / "billing.json")
    ceremony.sign()

    assert "service billing is added" in said
    assert "billing: fingerprint" in said
    assert "billing" in ceremony.content["services"]
    assert ceremony.content["version"] == 2


def test_whoever_goes_goes_with_keys_and_rights(ceremony: Ceremony) -> None:
    said = ceremony.change("remove", "web")

    assert "service web is removed" in said
    assert "web may no longer send command shop.place_order to shop" in said


def test_an_operator_cannot_go_while_escrow_needs_its_key(ceremony: Ceremony) -> None:
    assert "there is no key of 'group:ops'" in ceremony.change("remove", "ops:alice", code=2)
    assert not ceremony.folder.has_draft


def test_rights_come_and_go(ceremony: Ceremony) -> None:
    more = ceremony.change("allow", "web", "command", "shop.forget")
    less = ceremony.change("deny", "web", "request", "shop.get_order")
    again = ceremony.change("allow", "web", "command", "shop.forget", code=2)

    assert "web may now send command shop.forget to shop" in more
    assert "web may no longer send request shop.get_order to shop" in less
    assert "has this right already" in again
    assert "shop.forget" in {rule["name"] for rule in ceremony.drafted["policy"]["send"]}


def test_a_key_is_revoked(ceremony: Ceremony) -> None:
    kid = ceremony.content["services"]["web"]["sign"][0]["kid"]

    said = ceremony.change("revoke", kid, "--reason", "compromise")

    assert f"key {kid} is revoked as compromised" in said
    assert ceremony.drafted["revoked"][0]["reason"] == "compromise"


def test_a_renewal_ends_later_and_a_draft_can_be_thrown_away(ceremony: Ceremony) -> None:
    before = ceremony.content["expires"]

    ceremony.change("renew", "--days", 30)
    drafted = ceremony.drafted["expires"]
    said = ceremony.change("discard")

    assert drafted - before > 20 * 24 * 3_600_000
    assert "the bundle in force stays" in said
    assert not ceremony.folder.has_draft
    assert read_content(ceremony.folder.current() or b"")["expires"] == before


def test_where_there_are_no_roots_nothing_is_changed(ceremony: Ceremony) -> None:
    said = ceremony.call("trust", "renew", "--trust", ceremony.installation.keys, code=2)

    assert "trust init --dev" in said
