"""What waits for signatures, shown with what makes it the bundle in force."""

import pytest

from messaging.cli.drafts import show_draft
from tests.support.ceremony import Ceremony


def test_a_draft_says_what_changes_and_who_must_sign(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    ceremony.change("allow", "web", "command", "shop.forget")

    show_draft(ceremony.folder)

    said = capsys.readouterr().out
    assert "Draft of trust bundle version 2" in said
    assert "web may now send command shop.forget to shop" in said
    assert "when 1 root key signs it" in said


def test_the_first_draft_is_compared_with_nothing(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    ceremony.change("renew")
    (ceremony.trust / "trust.bundle").unlink()

    show_draft(ceremony.folder)

    said = capsys.readouterr().out
    assert "service shop is added" in said
    assert "realm changes" not in said
