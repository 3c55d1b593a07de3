"""How psycopg reads values: a numeric NaN equals itself, as on the server, unlike Python's."""

from __future__ import annotations

from functools import cache
from typing import Any

from backup.stores.exact_json import decimal_of


def set_up_values(connection: Any, _record: Any) -> None:
    """Makes a new connection read numerics so. A listener of SQLAlchemy's event `connect`."""
    connection.adapters.register_loader("numeric", _numeric_loader())


@cache
def _numeric_loader() -> type:
    from psycopg.adapt import Loader

    class NumericLoader(Loader):
        """Reads a numeric from its text."""

        def load(self, data: Any) -> Any:
            return decimal_of(str(data, "ascii"))

    return NumericLoader
