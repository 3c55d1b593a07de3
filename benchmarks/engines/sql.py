"""What the SQL engines share: a source that one statement changes, and that is restored from the old rows."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing
from typing import Any

from benchmarks import drivers
from benchmarks.data import LATER, Change, customers
from benchmarks.engines.base import Engine
from benchmarks.jobs import Place


class SqlEngine(Engine):
    """A table of customers."""

    source: str
    source_table: str

    def build(self) -> None:
        with closing(self.connect(self.source)) as connection:
            self._make_schema(connection)
            drivers.run(connection, f"DROP TABLE IF EXISTS {self._old_rows}")
            drivers.run(connection, f"DROP TABLE IF EXISTS {self._table}")
            drivers.run(connection, drivers.create_table(self.name, self.source_table))
            for rows in drivers.batches(customers(self.name, 1, self.rows)):
                drivers.insert(self.name, connection, self.source_table, rows)
            connection.commit()
        self.deleted = 0
        self.settle(self.source, self.source_table)

    def change(self, change: Change) -> None:
        where = f"WHERE {drivers.quoted(self.name, 'Id')} {change.condition}"
        with closing(self.connect(self.source)) as connection:
            drivers.run(connection, self.copy_table(self._old_rows, f"{self._table} {where}"))
            if change.kind == "delete":
                drivers.run(connection, f"DELETE FROM {self._table} {where}")
                self.deleted = len(change.numbers)
            else:
                drivers.run(connection, f"UPDATE {self._table} SET {self._updates()} {where}")
        self.settle(self.source, self.source_table)

    def undo(self, change: Change) -> None:
        key = drivers.quoted(self.name, "Id")
        with closing(self.connect(self.source)) as connection:
            drivers.run(connection, f"DELETE FROM {self._table} WHERE {key} {change.condition}")
            drivers.run(connection, f"INSERT INTO {self._table} SELECT * FROM {self._old_rows}")
            drivers.run(connection, f"DROP TABLE {self._old_rows}")
        self.deleted = 0
        self.settle(self.source, self.source_table)

    def has_copies(self, place: Place) -> bool:
        with closing(self.connect(place.backup)) as connection:
            table = drivers.quoted(self.name, place.backup_table)
            return bool(drivers.query(connection, f"SELECT COUNT(*) FROM {table}")[0][0])

    def connect(self, text: str) -> Any:
        """Opens a connection to a side."""
        return drivers.connect(self.name, text)

    def copy_table(self, table: str, of: str) -> str:
        """Returns the statement that makes a table from rows."""
        return f"SELECT * INTO {table} FROM {of}"

    def settle(self, side: str, table: str) -> None:
        """Brings the table into the state that a quiet server would leave, and into the server's cache."""

    @abstractmethod
    def _make_schema(self, connection: Any) -> None:
        """Makes the schema of the source's table."""

    def _updates(self) -> str:
        later = LATER.replace("T", " ") + ".000000" if self.name == "sqlite" else LATER
        new = {"Version": "{} + 1", "Balance": "{} + 1", "ModifiedAt": f"'{later}'"}
        names = {name: drivers.quoted(self.name, name) for name in new}
        return ", ".join(f"{names[name]} = {value.format(names[name])}" for name, value in new.items())

    @property
    def _table(self) -> str:
        return drivers.quoted(self.name, self.source_table)

    @property
    def _old_rows(self) -> str:
        schema = self.source_table.rpartition(".")[0]
        return drivers.quoted(self.name, ".".join(filter(None, (schema, "Kept"))))
