"""Writes many rows to PostgreSQL by COPY, which costs the driver a tenth of the work of parameters.

COPY reads a text as CAST does, but refuses values that CAST would cut. It writes the values of identity columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect

from backup.core.errors import RightMissing
from backup.stores.exact_json import slices_of
from backup.stores.sql.engines.column import spelled_column, spelled_table
from backup.stores.sql.engines.postgresql.errors import FULL
from backup.stores.sql.engines.prepared import LARGE, LARGE_BYTES, Prepared, Row, driver_rows, lengths, send
from backup.stores.sql.engines.tables import send_ddl

SPELLING = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call] # other styles double each % in a name
_ANY_OF = sa.text("ANY (ARRAY(SELECT json_array_elements_text(CAST(:keys AS json))))")
_STAGED = "backup_changes"
# For fewer rows a temporary table does not pay. A sync that updates rows of ten columns takes, row by row and through
# the table, in milliseconds of the processor: of 10 rows 79 and 83, of 20 rows 82 and 83, of 40 rows 89 and 85.
_FEW = 20
_MAY_STAGE = sa.text("SELECT has_database_privilege(current_database(), 'TEMPORARY')")


class Copying:
    """Writes rows by COPY where this login may, in one database. Asks for the right once for each table."""

    def __init__(self) -> None:
        self._rights: dict[str, bool] = {}
        self._has_no_room = False  # for temporary tables

    def insert(self, cx: sa.Connection, insert: Prepared, rows: Sequence[Row]) -> None:
        """Inserts the rows, with their own values for identity columns."""
        if self.may_copy(cx, insert.table):
            _copy(cx, insert.table, insert.names, rows)
            return
        start, values, end = insert.text.rpartition(") VALUES (")
        insert._replace(text=f"{start}) OVERRIDING SYSTEM VALUE{values[1:]}{end}").run(cx, rows)

    def update(self, cx: sa.Connection, update: Prepared, rows: Sequence[Row]) -> None:
        """Updates the table's rows with the same keys to these values, through a temporary table."""
        # Large values go by COPY too: libpq would keep a parameter in memory twice.
        few = len(rows) < _FEW and sum(sum(lengths([*row]) or ()) for row in rows) < LARGE_BYTES
        staged = None if few or not self.may_stage(cx) else self._staged(cx, update, rows)
        if staged is None:
            update.run(cx, rows)
            return
        columns = [update.table.c[name] for name in update.names]
        values = dict(zip(update.names, staged.columns, strict=True))
        key = update.table.primary_key.columns
        written = {update.names[place] for place in update.values[: -len(key)]}
        cx.execute(
            update.table.update()
            .values({c: values[c.name] for c in columns if c.name in written})
            .where(*(column == values[column.name] for column in key))
        )

    def _staged(self, cx: sa.Connection, update: Prepared, rows: Sequence[Row]) -> sa.Table | None:
        """The rows in a temporary table; None where these have no room, also later."""
        if self._has_no_room:
            return None
        try:
            # In one statement, and not by SQLAlchemy, whose savepoint takes a millisecond.
            staged = staging_table(cx, update.table, update.names, behind=f"SAVEPOINT {_STAGED}; ")
            _copy(cx, staged, staged.columns.keys(), rows)
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in FULL:
                raise
            send_ddl(cx, f"ROLLBACK TO {_STAGED}")
            self._has_no_room = True
            return None
        send_ddl(cx, f"RELEASE {_STAGED}")
        return staged

    def add(self, cx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """As `Dialect.add_rows`."""
        # A query and a COPY cost half of an INSERT … ON CONFLICT, for the server and for Python.
        [key] = table.primary_key.columns
        parameters = {"keys": json.dumps([row[key.name] for row in rows])}
        existing_keys = set(cx.scalars(sa.select(key).where(key.op("=")(_ANY_OF)), parameters))
        missing = [row for row in rows if row[key.name] not in existing_keys]
        if not missing:
            return 0
        new = driver_rows(table, missing, cx.dialect)
        if self.may_copy(cx, table):
            return _copy(cx, table, table.columns.keys(), new)
        return send(cx, str(table.insert().compile(dialect=cx.dialect)), new)

    def may_copy(self, cx: sa.Connection, table: sa.Table) -> bool:
        """Whether the server takes COPY into the table: not where row-level security applies to this login."""
        name = spelled_table(SPELLING, table)
        if name not in self._rights:
            self._rights[name] = not cx.scalar(sa.select(sa.func.row_security_active(name)))
        return self._rights[name]

    def refuse_copy(self, cx: sa.Connection, table: sa.Table) -> None:
        """Raises RightMissing where the server takes no COPY into the table."""
        if not self.may_copy(cx, table):
            raise RightMissing(f"The server takes no COPY into {table.name}: row-level security applies to this login.")

    def may_stage(self, cx: sa.Connection) -> bool:
        """Whether this login may make temporary tables."""
        if _STAGED not in self._rights:
            self._rights[_STAGED] = bool(cx.scalar(_MAY_STAGE))
        return self._rights[_STAGED]

    def refuse_stage(self, cx: sa.Connection) -> None:
        """Raises RightMissing where this login may make no temporary tables."""
        if not self.may_stage(cx):
            raise RightMissing(
                "The login may make no temporary tables: it lacks the right TEMPORARY on the backup's database."
            )


def staging_table(
    cx: sa.Connection, table: sa.Table, names: Sequence[str], *, with_text: bool = False, behind: str = ""
) -> sa.Table:
    """Makes a temporary table with these columns of the table: the same types and collations, no constraints. It ends
    with the transaction. `with_text`: and with a last column for texts. It is made `behind` another statement."""
    spelled = [f"{spelled_column(SPELLING, table, name)} AS c{i}" for i, name in enumerate(names)]
    spelled += [f"CAST(NULL AS text) AS c{len(names)}"] if with_text else []
    create = (
        f"{behind}CREATE TEMPORARY TABLE {_STAGED} ON COMMIT DROP AS SELECT {', '.join(spelled)}"  # noqa: S608 - names
        f" FROM {spelled_table(SPELLING, table)} WITH NO DATA"
    )
    send_ddl(cx, create)
    return _staging_table((*(table.c[name].type for name in names), *([sa.Text()] if with_text else [])))


@lru_cache(maxsize=64)  # the same object each time, so that statements on it are made once
def _staging_table(types: tuple[Any, ...]) -> sa.Table:
    columns = (sa.Column(f"c{i}", type_) for i, type_ in enumerate(types))
    return sa.Table(_STAGED, sa.MetaData(), *columns, schema="pg_temp")


def send_copied(cursor: Any, statement: str, _parameters: Any, context: Any) -> bool | None:
    """Sends the rows of a COPY. A listener of SQLAlchemy's events `do_execute` and `do_executemany`."""
    if not context.execution_options.get("copied"):
        return None
    with cursor.copy(statement) as copy:
        if context.execution_options.get("large"):
            for piece in _text_of(context.parameters, cursor):
                copy.write(piece)
        else:
            for row in context.parameters:
                copy.write_row(row)
    return True


def _text_of(rows: Iterable[Row], cursor: Any) -> Iterator[bytes]:
    """The rows as COPY reads them, piece by piece. The driver would hold a large value several times."""
    from psycopg.adapt import PyFormat, Transformer

    transformer = Transformer(cursor)
    for row in rows:
        for number, value in enumerate(row):
            yield b"\t" if number else b""
            if value is None:
                yield b"\\N"
            elif type(value) is bytes:
                yield b"\\\\x"
                yield from (part.hex().encode() for part in slices_of(value))
            elif type(value) is str:
                yield from (_escaped(part.encode()) for part in slices_of(value))
            else:
                yield _escaped(bytes(transformer.get_dumper(value, PyFormat.TEXT).dump(value) or b""))
        yield b"\n"


def _escaped(text: bytes) -> bytes:
    for character, escape in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        text = text.replace(character, escape)
    return text


def _copy(cx: sa.Connection, table: sa.Table, names: Sequence[str], rows: Sequence[Row]) -> int:
    columns = ", ".join(spelled_column(SPELLING, table, name) for name in names)
    return send(
        cx, f"COPY {spelled_table(SPELLING, table)} ({columns}) FROM STDIN", rows, copied=True, large=LARGE in cx.info
    )
