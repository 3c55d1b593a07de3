"""For a table that does not exist: the table that the settings may mean. Asks the catalogue only in this case."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches

import sqlalchemy as sa

from backup.stores.sql.engines.tables import whole_schema

_MAX_SCHEMAS = 50  # schemas to look through


def suggestion(cx: sa.Connection, name: str, schema: str | None) -> str:
    """What follows "… does not exist": a table with this name in another case, in another schema, or with a similar
    name; "." if there is none.

    `schema` is the one in which the server looked; None where the server has no schemas.
    """
    with suppress(sa.exc.SQLAlchemyError):
        inspector = sa.inspect(cx)
        tables = inspector.get_table_names(schema=whole_schema(schema))
        same_name = [table for table in tables if table.lower() == name.lower()]
        if schema is not None and not same_name:
            for other_schema in inspector.get_schema_names()[:_MAX_SCHEMAS]:
                if other_schema != schema:
                    names = inspector.get_table_names(schema=whole_schema(other_schema))
                    same_name += [f"{other_schema}.{table}" for table in names if table.lower() == name.lower()]
        if same_name:
            return f"; there is {', '.join(same_name[:3])}."
        if near := get_close_matches(name, tables, 1, 0.8):
            return f"; did you mean {near[0]}?"
    return "."
