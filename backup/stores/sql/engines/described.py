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
    `identity`: a number that the table keeps when it is renamed, and that no other has; None where nobody has asked.
    """

    table: TableName
    columns: list[Column] | None = None
    error: BackupError | None = None
    rows_at_most: int | None = None
    identity: int | None = None
