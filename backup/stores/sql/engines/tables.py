"""Which table a name stands for on a server, and how a statement names just that one."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles


class Found(NamedTuple):
    """A table as its server has it: its schema, None where there are none, and its name, both in the server's spelling.

    `alone`: a statement must say that it means this table itself. On PostgreSQL that is one that others may inherit
    from, whose rows would else be seen with its own; on SQLite one with an index by a collation that its application
    made, which no index helps to read.
    """

    schema: str | None
    name: str
    alone: bool = False

    @property
    def spelled(self) -> str:
        """`customer.Customers`, or the name alone where there are no schemas."""
        return ".".join(part for part in (self.schema, self.name) if part)


class TableAlone(sa.Table):
    """A table that is `Found.alone`."""

    inherit_cache = True


@compiles(TableAlone, "postgresql")
def _only(table: Any, compiler: Any, asfrom: bool = False, **more: Any) -> str:
    name: str = compiler.visit_table(table, asfrom=asfrom, **more)
    return f"ONLY {name}" if asfrom else name


@compiles(TableAlone, "sqlite")
def _not_indexed(table: Any, compiler: Any, asfrom: bool = False, **more: Any) -> str:
    name: str = compiler.visit_table(table, asfrom=asfrom, **more)
    return f"{name} NOT INDEXED" if asfrom else name
