"""A table as a server's catalogue describes it."""

from __future__ import annotations

from typing import NamedTuple

from backup.core.errors import BackupError
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.tables import TableName


class Described(NamedTuple):
    """A table as the catalogue describes it: what `Dialect.find` and `columns` return. `columns` is None where they
    have to be read for themselves, and where `error` says why they cannot be used.

    `rows_at_most`: the table had no more rows than these at that moment; None where the server cannot tell cheaply.
    `identity`: numbers that the table keeps when it is renamed. Another table has none of them; of the same one, all
    but one may have changed. Empty where nobody has asked.
    """

    table: TableName
    columns: list[Column] | None = None
    error: BackupError | None = None
    rows_at_most: int | None = None
    identity: tuple[int, ...] = ()

    def is_other_than(self, before: Described) -> bool:
        """Whether this is surely another table than the one that had the name before."""
        both = [*zip(before.identity, self.identity, strict=False)]
        return bool(both) and all(then != now for then, now in both)
