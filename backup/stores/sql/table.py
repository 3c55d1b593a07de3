"""A table as its server's catalogue gives it, and the statements that need nothing but its shape."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.core.errors import BackupError, ConfigError, SchemaMismatch
from backup.core.model import Chunk, Key, Record, StampRow, Stamps, Version
from backup.core.suggestions import did_you_mean
from backup.stores.asked_keys import parts_of, unusable_key, value_of
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.base import StampColumns
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.tables import Found, TableAlone
from backup.stores.values import Rules

SYNCED_AT = "SyncedAt"
_FLAGS = ("bit", "bool", "boolean")


class TableShape:
    """A table's columns, key, version and filter. Names are found exactly, or else whatever their case."""

    def __init__(
        self,
        columns: Sequence[Column],
        key_names: tuple[str, ...],
        rules: Rules,
        found: Found,
        label: str,
    ) -> None:
        self.columns, self.key_names = columns, key_names
        self.table = declare(found, columns, key_names)
        self.names = tuple(column.name for column in columns)
        self._exact = {column.name: column for column in columns}
        self._any_case = {column.name.lower(): column for column in columns}
        self.label = label
        self.key = [self.table.c[name] for name in key_names]
        self._rules = rules
        self._apply_rules(version=self.names, where=self.names)
        self.identity = frozenset(column.name for column in columns if column.identity)
        self.select = sa.select(*self.table.columns)
        self.references: Sequence[Any] | None = None  # once they were asked for
        self.content: Mapping[str, str] = {name: name for name in self.names}
        """What the hash of a row's content covers: a column's name here → its name in the source."""

    @classmethod
    def reflect(
        cls,
        cx: sa.Connection,
        dialect: Dialect,
        rules: Rules,
        found: Found,
        label: str,
        missing: type[BackupError],
    ) -> TableShape:
        """Raises `missing` for a table that is not there, SchemaMismatch without a usable key."""
        columns = dialect.columns(cx, found.schema, found.name)
        if not columns:
            raise missing(f"The {label} does not exist.")
        key = sorted((column.key_position, column.name) for column in columns if column.key_position)
        key_names = tuple(name for _, name in key)
        if not key_names:
            raise SchemaMismatch(
                f"The {label} has no primary key.", hint="Only a table with a primary key can be backed up."
            )
        for column in columns:
            if column.name in key_names and not column.sortable:
                raise SchemaMismatch(
                    f"The {label} has the key column {column.name}, whose type sorts in an order of its own.",
                    hint="Only a key of the server's built-in types can be backed up.",
                )
        rules = replace(rules, where=filter_values(columns, rules, label, plain=dialect.in_process))
        return cls(columns, key_names, rules, found, label)

    def key_of(self, record: Record) -> Key:
        return tuple(record[name] for name in self.key_names)

    def find(self, name: str) -> Column | None:
        """The column of this name: spelled exactly so, or else in another case."""
        return self._exact.get(name) or self._any_case.get(name.lower())

    def match(self, source: TableShape) -> None:
        """Makes versions and hashes of content of both cover the columns that both have, under the source's names.

        Rows are picked by what the source can be asked: a filter column that only this table has counts no more.
        """
        shared = {copy.name: column.name for column in source.columns if (copy := self.find(column.name))}
        self.content, source.content = shared, {name: name for name in shared.values()}
        self._apply_rules(version=shared.keys(), where=shared.keys())
        source._apply_rules(version=shared.values(), where=source.names)

    def _apply_rules(self, version: Collection[str], where: Collection[str]) -> None:
        found = {rule: c for rule in (*self._rules.version, *self._rules.where) if (c := self.find(rule))}
        names = [found[rule].name for rule in self._rules.version if rule in found]
        first = found.get(self._rules.version[0]) if self._rules.version else None
        # The other fields alone (a status) do not tell that a row has changed.
        usable = first is not None and first.name in version
        self.version = [self.table.c[name] for name in names if name in version] if usable else []
        self.filters = [
            self.table.c[found[rule].name] == value
            for rule, value in self._rules.where.items()
            if rule in found and found[rule].name in where
        ]

    @property
    def lacks_version(self) -> bool:
        """Whether the service has version fields and the table no column for them."""
        return bool(self._rules.version) and not self.version

    def stamps(self, dialect: Dialect) -> StampColumns:
        """What stamps are made of, by the columns that source and backup share."""
        if self.version and not self._exact[self.version[0].name].nullable:
            return StampColumns(self.key, self.version, None)
        shared = sorted(self.content, key=lambda name: self.content[name])
        return StampColumns(self.key, self.version, dialect.content_hash([self.table.c[name] for name in shared]))

    def stamp_query(self, dialect: Dialect) -> sa.Select[Any]:
        """Selects stamps laid flat: the key, the version's fields, and the hash of the content of a row without a
        version, else NULL."""
        key, version, content = self.stamps(dialect)
        if content is None:
            return sa.select(*key, *version, sa.null())
        return sa.select(*key, *version, sa.case((version[0].is_(None), content)) if version else content)

    def stamps_of(self, rows: Iterable[StampRow]) -> Stamps:
        """The stamps that rows of `stamp_query` lay flat."""
        width = len(self.key)
        return {row[:width]: Version(row[width:-1] if row[-1] is None else (None, row[-1])) for row in rows}

    def key_from(self, text: str, *, plain: bool = False) -> Key:
        """The key that a person wrote: a JSON list of its columns' values, or the plain value where it has but one."""
        width = len(self.key_names)
        parts = parts_of(text, self.label, any_bytes=plain)
        if width == 1 and (parts is None or len(parts) != 1):
            parts = [text]
        if parts is None or len(parts) != width or None in parts or {} in parts:
            hint = f"Its key is {', '.join(self.key_names)}: write a JSON list of these {width} values."
            raise unusable_key(text, self.label, hint)
        try:
            return tuple(value_of(kind, part, plain=plain) for kind, part in zip(self.key_types, parts, strict=True))
        except (ValueError, ArithmeticError):
            raise unusable_key(text, self.label, f"Its key has the type {', '.join(self.key_types)}.") from None

    @property
    def key_types(self) -> list[str]:
        """The declared types of the key's columns."""
        return [self._exact[name].type.declared for name in self.key_names]

    def insert(self, names: Sequence[str]) -> sa.Insert:
        """An insert of these columns. Its parameters are `v0`, `v1` …: column names may hold anything."""
        return self.table.insert().values(self._values(names))

    def update(self, names: Sequence[str]) -> sa.Update:
        """The same as an update of the row whose key is `k0`, `k1` …; identity columns are left as they are."""
        key = (column == sa.bindparam(f"k{i}", type_=column.type) for i, column in enumerate(self.key))
        return self.table.update().where(*key).values(self._values(names, but=self.identity))

    def _values(self, names: Sequence[str], but: frozenset[str] = frozenset()) -> dict[sa.Column[Any], Any]:
        columns = [self.table.c[name] for name in names]
        return {c: sa.bindparam(f"v{i}", type_=c.type) for i, c in enumerate(columns) if c.name not in but}

    def is_one_of(
        self, keys: Sequence[Key], columns: Sequence[sa.ColumnElement[Any]] | None = None
    ) -> sa.ColumnElement[bool]:
        """The condition for rows of these keys, as the server compares keys; `columns` stand for the table's own."""
        own = columns or self.key
        if len(own) == 1:
            type_ = self._exact[self.key_names[0]].type
            return type_.has_one_of(own[0], [key[0] for key in keys])
        pairs = ([column == value for column, value in zip(own, key, strict=True)] for key in keys)
        return sa.or_(*(sa.and_(*conditions) for conditions in pairs))

    def within(self, chunk: Chunk) -> list[sa.ColumnElement[bool]]:
        """The chunk's conditions: lexicographic over the key columns, each led by one that seeks on the key's index."""
        conditions = []
        if chunk.after is not None:
            conditions.append(_after(self.key, chunk.after))
        if chunk.upto is not None:
            conditions.append(_upto(self.key, chunk.upto))
        return conditions


def split_name(table: str) -> tuple[str | None, str]:
    """`customer.Customers`, `[my schema].[my.table]` or `Customers` → schema and table."""
    parts = [
        bracketed.replace("]]", "]") or quoted.replace('""', '"') or plain
        for bracketed, quoted, plain in re.findall(r'\[((?:[^]]|\]\])+)\]|"((?:[^"]|"")+)"|([^.\[\]"]+)', table)
    ]
    if len(parts) not in (1, 2):
        raise ConfigError(
            f"{table!r} is not a table name.",
            hint="Write schema.table, with brackets where a name has a dot.",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def filter_values(columns: Sequence[Column], rules: Rules, label: str, *, plain: bool) -> Mapping[str, Any]:
    """What the filter's columns have to be, as values of their types; columns that are not there are left out.

    Raises ConfigError for a required column that is not there, and for a value that a column cannot have.
    """
    names = {**{column.name.lower(): column for column in columns}, **{column.name: column for column in columns}}
    for name, setting in rules.required.items():
        if name not in names and name.lower() not in names:
            raise ConfigError(
                f"The {label} has no column {name}, which the setting {setting} names."
                f"{did_you_mean(name, (column.name for column in columns))} Nothing was changed.",
                hint="Name a column of the table; case does not count.",
            )
    values = {}
    for name, value in rules.where.items():
        if (column := names.get(name) or names.get(name.lower())) is None:
            continue
        try:
            # SQLite's driver knows no flags, and its columns hold 0 and 1.
            values[name] = int(value) if plain and isinstance(value, bool) else _value(column, value, plain=plain)
        except (ValueError, ArithmeticError):
            raise ConfigError(
                f"The column {name} of the {label} has the type {column.type.declared}, and cannot be what the filter "
                "of the service says. Nothing was changed.",
                hint=f"Correct the setting {rules.required.get(name, 'Where')}.",
            ) from None
    return values


def _value(column: Column, value: Any, *, plain: bool) -> Any:
    if isinstance(value, bool) and column.type.declared.lower() in _FLAGS:
        return value
    return value_of(column.type.declared, value, plain=plain)


def loosened(source: TableShape) -> list[Column]:
    """The columns of a backup: nullable beyond the key, for the source may come to lose or to loosen any of them."""
    return [column if column.name in source.key_names else replace(column, nullable=True) for column in source.columns]


def declare(found: Found, columns: Sequence[Column], key_names: Sequence[str], *more: sa.Column[Any]) -> sa.Table:
    """The table as SQLAlchemy and CREATE TABLE need it; the key's order need not be that of the columns."""
    if more:
        return _declared(found, columns, key_names, *more)
    return _declared_once(found, tuple(columns), tuple(key_names))


def _declared(found: Found, columns: Sequence[Column], key_names: Sequence[str], *more: sa.Column[Any]) -> sa.Table:
    return (TableAlone if found.alone else sa.Table)(
        found.name,
        sa.MetaData(),
        *(sa.Column(c.name, c.type, nullable=c.nullable, autoincrement=False) for c in columns),
        *more,
        sa.PrimaryKeyConstraint(*key_names),
        schema=found.schema,
    )


# Every run reads its tables anew. Statements on one that has not changed are compiled already if it is the same object.
_declared_once = lru_cache(maxsize=64)(_declared)


def is_mark(column: Column, declared: str | None) -> bool:
    """Whether a backup's column is the app's own SyncedAt, declared so, and not one of its source's."""
    if declared is None or column.name != SYNCED_AT or not column.nullable:
        return False
    mine, its_own = (re.sub(r"\(\d+\)", "", text).lower() for text in (column.type.declared, declared))
    return mine == its_own


def _after(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    beyond: sa.ColumnElement[bool] = key[0] > values[0]
    if len(key) == 1:
        return beyond
    return sa.and_(key[0] >= values[0], sa.or_(beyond, _after(key[1:], values[1:])))


def _upto(key: Sequence[sa.Column[Any]], values: Key) -> sa.ColumnElement[bool]:
    if len(key) == 1:
        last: sa.ColumnElement[bool] = key[0] <= values[0]
        return last
    return sa.and_(key[0] <= values[0], sa.or_(key[0] < values[0], _upto(key[1:], values[1:])))
