"""`Inserts`: rows that a handler leaves to the end of its transaction, where those of a whole group take one statement.

A statement of its own for each row is most of what the database costs a handler in a group. What nobody reads back in
the handler need not have one:

    @orders.on_command(PlaceOrder, group=10)
    async def place_order(command: PlaceOrder, context: Context, inserts: Inserts) -> None:
        inserts.add(ORDERS, order_id=command.order_id, total_cents=command.total_cents)

Rules: rows go in behind everything that the handlers wrote themselves, table by table as they were first asked for,
each table's rows in their order, in the same transaction as ever. A row that cannot go in fails its handler at its end;
in a group all are undone, run again, each alone, and only the one to blame fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from messaging.errors import ConfigurationError

__all__ = ["Inserts", "write_rows"]

# Rows with the same columns of a table share a statement.
_Place = tuple[Table, tuple[str, ...]]


class Inserts:
    """What one handler leaves to the end of its transaction."""

    def __init__(self) -> None:
        self._rows: dict[_Place, list[Mapping[str, Any]]] = {}

    @property
    def rows(self) -> Mapping[_Place, Sequence[Mapping[str, Any]]]:
        """What was added, by table and columns."""
        return self._rows

    def add(self, table: Table, /, **values: Any) -> None:
        """Leave a row to the end of the transaction; a `begin_nested()` that is rolled back keeps it.

        Args:
            table: Where it goes.
            **values: By column.

        Raises:
            ConfigurationError: the table has no such column.
        """
        place = (table, tuple(values))
        rows = self._rows.get(place)
        if rows is None:
            unknown = [name for name in values if name not in table.c]
            if unknown:
                raise ConfigurationError(f"table {table.name!r} has no column {unknown[0]!r}")
            rows = self._rows[place] = []
        rows.append(values)


async def write_rows(connection: AsyncConnection, left: Sequence[Inserts]) -> None:
    """Write what handlers left, with one statement for each table and set of columns.

    Args:
        connection: In the transaction of all of them.
        left: In the order in which the handlers ran.
    """
    together: dict[_Place, list[Mapping[str, Any]]] = {}
    for inserts in left:
        for place, rows in inserts.rows.items():
            together.setdefault(place, []).extend(rows)
    for (table, _), rows in together.items():
        await connection.execute(insert(table), rows)
