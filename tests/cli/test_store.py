"""The tables of a store from the shell, on SQLite and on PostgreSQL."""

import sqlite3
from pathlib import Path

import pytest

from messaging.cli.exits import Exit
from tests.support.databases import database_url, postgres_server, postgres_url
from tests.support.installation import Installation

__all__ = ["database_url", "postgres_server", "postgres_url"]

STORED = """
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from messaging import Service
from messaging.stores.sql import SqlStore

shop = Service("shop", store=SqlStore(create_async_engine({url!r}, poolclass=NullPool)))
bare = Service("shop")
"""


@pytest.fixture
def stored(offline: Installation, database_url: str) -> Installation:
    (offline.folder / "tabled.py").write_text(STORED.format(url=database_url))
    return offline


def test_the_tables_are_made_and_a_second_run_has_nothing_to_do(stored: Installation) -> None:
    first = stored.call("store", "migrate", "tabled:shop")
    second = stored.call("store", "migrate", "tabled:shop")

    assert (first.exit_code, second.exit_code) == (Exit.OK, Exit.OK)
    assert "no version is recorded, the newest is" in first.stdout
    assert "The inbox and the outbox." in first.stdout
    assert "migrated to" in first.stdout
    assert "nothing to do" in second.stdout


def test_a_dry_run_says_what_is_missing_and_changes_nothing(stored: Installation) -> None:
    dry = stored.call("store", "migrate", "tabled:shop", "--dry-run")
    after = stored.json("store", "migrate", "tabled:shop", "--dry-run", "--json")

    assert dry.exit_code == Exit.OK
    assert "nothing was changed" in dry.stdout
    assert (after["before"], after["migrated"]) == (None, False)


def test_the_statements_alone_are_on_stdout(stored: Installation) -> None:
    shown = stored.call("store", "migrate", "tabled:shop", "--sql")

    assert shown.exit_code == Exit.OK
    assert shown.stdout.lstrip().startswith("CREATE TABLE")
    assert "messaging_inbox" in shown.stdout
    assert "the newest is" not in shown.stdout
    assert "nothing was changed" in shown.stderr


def test_json_tells_the_steps(stored: Installation) -> None:
    told = stored.json("store", "migrate", "tabled:shop", "--json")
    again = stored.json("store", "migrate", "tabled:shop", "--json")

    assert told["migrated"]
    assert told["steps"][0] == {"version": "0001", "title": "The inbox and the outbox."}
    assert (again["before"], again["steps"]) == (told["newest"], [])


def test_tables_of_a_newer_release_are_left_alone(offline: Installation, tmp_path: Path) -> None:
    (offline.folder / "tabled.py").write_text(STORED.format(url=f"sqlite+aiosqlite:///{tmp_path / 'newer.db'}"))
    offline.call("store", "migrate", "tabled:shop")
    connection = sqlite3.connect(tmp_path / "newer.db")
    connection.execute("UPDATE messaging_store_version SET version_num = '9999'")
    connection.commit()
    connection.close()

    refused = offline.call("store", "migrate", "tabled:shop")

    assert refused.exit_code == Exit.CONFIGURATION
    assert "update this program" in refused.stderr


def test_a_database_that_does_not_answer_is_said_without_its_password(offline: Installation) -> None:
    url = "postgresql+asyncpg://shop:geheim@127.0.0.1:1/none"
    (offline.folder / "tabled.py").write_text(STORED.format(url=url))

    failed = offline.call("store", "migrate", "tabled:shop")

    assert failed.exit_code == Exit.FAILURE
    assert "the database does not answer" in failed.stderr
    assert "geheim" not in failed.output


def test_a_service_without_a_store_has_no_tables(offline: Installation) -> None:
    (offline.folder / "tabled.py").write_text(STORED.format(url="sqlite+aiosqlite:///x.db"))

    refused = offline.call("store", "migrate", "tabled:bare")

    assert refused.exit_code == Exit.CONFIGURATION
    assert "no durable store" in refused.stderr
