"""What psycopg is told of values: numeric's NaN is equal to itself, as on the server and not in Python."""

from __future__ import annotations

from functools import cache
from typing import Any

from backup.stores.exact_json import decimal_of


def settle_values(connection: Any, _record: Any) -> None:
    """Has a new connection read numerics so; as SQLAlchemy's event `connect` wants it."""
    connection.adapters.register_loader("numeric", _numeric_loader())


@cache
def _numeric_loader() -> type:
    from psycopg.adapt import Loader

    class NumericLoader(Loader):
        """Reads a numeric from its text."""

        def load(self, data: Any) -> Any:
            return decimal_of(str(data, "ascii"))

    return NumericLoader
