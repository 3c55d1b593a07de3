"""A table that is not there: the one that may have been meant. Asks the catalogue only once a table was missed."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches

import sqlalchemy as sa

_ENOUGH = 50  # schemas to look through


def suggestion(cx: sa.Connection, name: str, schema: str | None) -> str:
    """Behind "… does not exist": the table spelled in another case, in another schema, or nearly so; "." if none is.

    `schema` is the one that was looked in; None where the server has no schemas.
    """
    with suppress(sa.exc.SQLAlchemyError):
        inspector = sa.inspect(cx)
        here = inspector.get_table_names(schema=schema)
        same = [table for table in here if table.lower() == name.lower()]
        if schema is not None and not same:
            others = [other for other in inspector.get_schema_names()[:_ENOUGH] if other != schema]
            found = ((other, table) for other in others for table in inspector.get_table_names(schema=other))
            same = [f"{other}.{table}" for other, table in found if table.lower() == name.lower()]
        if same:
            return f"; there is {', '.join(same[:3])}."
        if near := get_close_matches(name, here, 1, 0.8):
            return f"; did you mean {near[0]}?"
    return "."
