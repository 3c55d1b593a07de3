"""The secondary indexes of a table, as SQLAlchemy reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from backup.stores.sql.engines.tables import TableName


def inspected_indexes(cx: sa.Connection, table: TableName) -> Sequence[Mapping[str, Any]]:
    """As `Dialect.indexes`: with the unique constraints, where the server does not list them as indexes."""
    inspector = sa.inspect(cx)
    indexes: list[Mapping[str, Any]] = [*inspector.get_indexes(table.name, table.schema)]
    with suppress(NotImplementedError):
        indexes += [dict(constraint) for constraint in inspector.get_unique_constraints(table.name, table.schema)]
    return indexes
