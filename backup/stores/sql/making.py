"""Makes tables, indexes and foreign keys where they are missing, and alters columns. Touches no record."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import sqlalchemy as sa

from backup.core.errors import RightMissing, StoreError, StoreUnavailable
from backup.stores.sql.access import SqlAccess
from backup.stores.values import Drift


def make_if_missing(
    access: SqlAccess, operation: str, exists: Callable[[sa.Connection], bool], make: Callable[[sa.Connection], object]
) -> None:
    """Makes what does not exist yet. Another process may do so at the same time."""
    for attempt in access.attempts(operation):
        with attempt as cx:
            is_made = exists(cx)
    if is_made:
        return
    try:
        for attempt in access.attempts(operation, writes=True):
            with attempt as cx:
                make(cx)
    except StoreError:
        for attempt in access.attempts(operation):
            with attempt as cx:
                is_made = exists(cx)
        if not is_made:
            raise


def make_table(access: SqlAccess, table: sa.Table) -> None:
    """Makes the schema and the table where missing, in a database that exists."""
    schema, dialect = table.schema, access.dialect
    if schema is not None and dialect.default_schema is not None:
        make_if_missing(
            access,
            f"create the schema {schema}",
            lambda cx: dialect.has_schema(cx, schema),
            lambda cx: cx.execute(sa.schema.CreateSchema(schema)),
        )
    make_if_missing(
        access,
        f"create the table {table.name}",
        lambda cx: sa.inspect(cx).has_table(table.name, schema=schema),
        table.create,
    )


def make_constraint(access: SqlAccess, constraint: sa.ForeignKeyConstraint) -> None:
    """Adds the foreign key to its table, unless the table has one of this name. An error's hint has the statement."""
    dialect, name = access.dialect, str(constraint.name)
    table, referred = constraint.table, constraint.referred_table
    own = (table.schema or dialect.default_schema, table.name)
    names = {"schema": referred.schema or dialect.default_schema, "table": referred.name}
    statement = sa.schema.AddConstraint(constraint)
    try:
        make_if_missing(
            access,
            f"add the foreign key {name}",
            lambda cx: (name, *own) in {tuple(row[:3]) for row in cx.execute(dialect.references, names)},
            lambda cx: cx.execute(statement),
        )
    except (StoreUnavailable, RightMissing):
        raise
    except StoreError as error:
        spelled = str(statement.compile(dialect=dialect.engine.dialect)).strip()
        error.hint = f"The rows are there. Mend what the message names, then run: {spelled}"
        raise


def alter(access: SqlAccess, table: sa.Table, drift: Drift) -> None:
    """Runs the drift's statements on the table, in one transaction where the server allows that for DDL."""
    try:
        for attempt in access.attempts("alter the columns", writes=True):
            with attempt as cx:
                # An earlier try, whose answer was lost, may have done it. Only adding a column fails if repeated.
                existing_names = {column.name for column in access.dialect.columns(cx, table.schema, table.name)}
                for added, statement in zip_longest((*drift.added, *drift.own), drift.statements):
                    if added not in existing_names:
                        # Without parameters. Else a driver would take a % or ? in a name for a parameter.
                        cx.exec_driver_sql(statement, execution_options={"no_parameters": True})
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise StoreError(
            str(error),
            hint="No record was changed. Let this login ALTER the table. Or remove what the message names, and"
            f" run on the backup: {'; '.join(drift.statements)}. Then sync again.",
        ) from None
