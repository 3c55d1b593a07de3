"""The table that a name stands for on a server, and how a statement names exactly that table."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import quoted_name

from backup.core.patterns import bracketed

_PLAIN = re.compile(r"[^.\[\]]*")
_Write = TypeVar("_Write", sa.Insert, sa.Update)


class TableName(NamedTuple):
    """A table's schema, None where there are none, and its name, both in the server's spelling.

    `alone`: a statement must say that it means only this table. On PostgreSQL other tables may inherit from it, and a
    plain statement would read their rows too. On SQLite it has an index sorted by a collation of its application, which
    the app cannot use.
    """

    schema: str | None
    name: str
    alone: bool = False

    @property
    def spelled(self) -> str:
        """`customer.Customers`, or the name alone where there are no schemas."""
        return ".".join(part for part in (self.schema, self.name) if part)


def spelled_name(schema: str | None, name: str) -> str:
    """The table as settings name it: `dbo.Customer`, or `dbo.[my.table]` where a part has to stand in brackets."""
    return ".".join(bracketed(part) for part in (schema, name) if part is not None)


def whole_schema(schema: str | None) -> str | None:
    """The schema as SQLAlchemy has to get it: of a schema with a dot it would make a database and a schema on SQL
    Server."""
    return quoted_name(schema, quote=True) if schema is not None and not _PLAIN.fullmatch(schema) else schema


def quoted_parts(dialect: sa.Dialect, *parts: str | None) -> str:
    """The parts of a name that there are, such as schema and table, as a statement quotes them."""
    return ".".join(dialect.identifier_preparer.quote_identifier(part) for part in parts if part)


def send_ddl(cx: sa.Connection, statement: str) -> None:
    """Runs the statement as it is. A driver would else take a % or ? in a name for a parameter."""
    cx.exec_driver_sql(statement, execution_options={"no_parameters": True})


def refusing(statement: _Write) -> _Write:
    """The statement, which fails where a row is refused. A table of SQLite may declare that such a row is passed over
    in silence, or that it replaces others."""
    return statement.prefix_with("OR ABORT", dialect="sqlite")


class TableAlone(sa.Table):
    """A table whose name is `TableName.alone`."""

    inherit_cache = True


@compiles(TableAlone, "postgresql")
def _only(table: Any, compiler: Any, asfrom: bool = False, **options: Any) -> str:
    name: str = compiler.visit_table(table, asfrom=asfrom, **options)
    return f"ONLY {name}" if asfrom else name


@compiles(TableAlone, "sqlite")
def _not_indexed(table: Any, compiler: Any, asfrom: bool = False, **options: Any) -> str:
    name: str = compiler.visit_table(table, asfrom=asfrom, **options)
    return f"{name} NOT INDEXED" if asfrom else name
