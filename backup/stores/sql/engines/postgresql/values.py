"""How psycopg reads values: a numeric NaN equals itself, as on the server, unlike Python's. Bytes come as they are, not
as text of twice their size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from backup.stores.exact_json import decimal_of
from backup.stores.sql.engines.prepared import HAS_BYTES


def set_up_values(connection: Any, _record: Any) -> None:
    """Makes a new connection read numerics so. A listener of SQLAlchemy's event `connect`."""
    for loader in _numeric_loaders():
        connection.adapters.register_loader("numeric", loader)


def ask_for_bytes(cursor: Any, _statement: str, _parameters: Any, context: Any) -> None:
    """Makes a query that may read bytes ask for the server's own form of values, instead of texts. A listener of
    SQLAlchemy's event `do_execute`."""
    if context.execution_options.get(HAS_BYTES):
        from psycopg.pq import Format

        cursor.format = Format.BINARY


@cache
def _numeric_loaders() -> Sequence[type]:
    from psycopg.adapt import Loader
    from psycopg.types.numeric import NumericBinaryLoader

    class NumericLoader(Loader):
        """Reads a numeric from its text."""

        def load(self, data: Any) -> Any:
            return decimal_of(str(data, "ascii"))

    class BinaryNumericLoader(NumericBinaryLoader):
        """Reads a numeric from the server's own form of it."""

        def load(self, data: Any) -> Any:
            value = super().load(data)
            return decimal_of("NaN") if value.is_nan() else value

    return NumericLoader, BinaryNumericLoader
