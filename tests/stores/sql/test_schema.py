from messaging.stores.sql import metadata
from messaging.stores.sql.schema import INBOX, OUTBOX, SCHEDULE, TRUST


def test_the_tables_can_be_included_in_an_applications_own() -> None:
    names = {"failed_run", "inbox", "outbox", "schedule", "trust"}
    assert set(metadata.tables) == {f"messaging_{name}" for name in names}
    assert all(table.metadata is metadata for table in (INBOX, OUTBOX, SCHEDULE, TRUST))


def test_a_message_is_one_row_for_each_service_that_handles_it() -> None:
    assert [column.name for column in INBOX.primary_key] == ["service", "sender", "message_id"]
