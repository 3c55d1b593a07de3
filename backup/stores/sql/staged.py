"""The rows of a temporary table, written over those of the table that they are for, in a transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.key_ranges import KeyRange
from backup.core.model import Action, Key
from backup.stores.keeping import Keep
from backup.stores.sql.engines.relayed import StagedRows
from backup.stores.sql.engines.tables import refusing
from backup.stores.sql.relay import OthersWrote
from backup.stores.sql.server_images import ServerImages
from backup.stores.sql.table import TableShape
from backup.stores.values import RelayedPart

_LOWER_NAMED = 10

RowConditions = Sequence[sa.ColumnElement[bool]]


class _Beside(NamedTuple):
    """The staged rows, beside the rows of the table: how many have one, and a lower version than that one."""

    existing: int
    lower: int
    ends: KeyRange | None


class Staged:
    """The staged rows of one transaction, and the table that they are for."""

    def __init__(
        self, shape: TableShape, staged: StagedRows, names: Sequence[str], among: RowConditions, *, compared: bool
    ) -> None:
        """`names` are those of the table's columns, in the order of the staged ones. Further staged columns are not
        written. `compared`: their versions are compared with those of the rows, too."""
        self._shape, self._staged, self._names, self._among = shape, staged, names, among
        self._version = [c for c in shape.version[:1] if compared and c.name in names]
        self._by_name = dict(zip(names, staged.table.columns, strict=False))
        self._key = [self._by_name[name] for name in shape.key_names]
        self._values = {shape.table.c[name]: self._by_name[name] for name in names if name not in shape.key_names}
        self._has_same_key = sa.and_(*(shape.table.c[name] == self._by_name[name] for name in shape.key_names), *among)

    def drop_unchanged(self, cx: sa.Connection) -> int:
        """Drops the staged rows whose versions are those of the rows with their keys, and returns their number. What
        the server takes for equal and is not, the proof finds."""
        table, version = self._shape.table, self._shape.version
        equal = [table.c[column.name].is_not_distinct_from(self._by_name[column.name]) for column in version]
        delete = self._staged.table.delete().where(sa.exists().where(self._has_same_key, *equal))
        return cx.execute(delete.execution_options(preserve_rowcount=True)).rowcount

    def drop_equal(self, cx: sa.Connection, content_hash: Callable[[Sequence[Any]], sa.ColumnElement[Any]]) -> set[Key]:
        """Drops the staged rows whose values are those of the rows with their keys, and returns their keys."""
        rows: Any = self._shape.table.c
        names = [column.name for column in self._shape.shared() if column.name in self._by_name]
        hashes = [content_hash([columns[name] for name in names]) for columns in (rows, self._by_name)]
        # Other versions are other values, which costs less to see.
        versions = [column.name for column in self._shape.version if column.name in self._by_name]
        same = [rows[name].is_not_distinct_from(self._by_name[name]) for name in versions]
        is_same = sa.and_(self._has_same_key, *same, hashes[0] == hashes[1])
        keys = {tuple(row) for row in cx.execute(sa.select(*self._key).where(is_same))}
        if keys:
            cx.execute(self._staged.table.delete().where(sa.exists().where(is_same)))
        return keys

    def write(self, cx: sa.Connection, images: ServerImages, keep: Keep, skipped: int) -> RelayedPart | None:
        """Writes the rows but for those `skipped` ones that were dropped; those that they replace into the bin first.
        None, and nothing was written, where the server cannot make the images. Raises OthersWrote if others wrote the
        same rows meanwhile."""
        number = self._staged.number - skipped
        if not number:
            return RelayedPart(skipped=skipped)
        key = self._shape.key
        whole_key = key[0] if len(key) == 1 else sa.tuple_(*key)
        replaced = sa.and_(*self._among, whole_key.in_(sa.select(*self._key)))
        # Where each has an image now, each has a row. Only versions would be asked for as well.
        are_kept_now = (
            self._staged.put is not None
            and not self._version
            and number == images.make_of(cx, self._shape, keep, Action.UPDATED, replaced, None)
        )
        beside = _Beside(number, 0, None) if are_kept_now else self._beside(cx)
        missing = number - beside.existing
        first_lower = self._lower(cx) if beside.lower else ()
        if beside.existing:
            of_rows = (replaced, beside.ends, beside.existing)
            if not (are_kept_now or images.make_all(cx, self._shape, keep, Action.UPDATED, *of_rows)):
                return None
            if self._staged.put is None and self._values and self.update(cx) != beside.existing:
                raise OthersWrote
        is_new = ~sa.exists().where(self._has_same_key)
        are_kept = bool(missing) and images.make_inserted(cx, self._shape, keep, self._key, is_new, missing)
        new_keys = self._new_keys(cx) if missing and not are_kept else ()
        if missing and not (are_kept or len(new_keys) == missing):
            raise OthersWrote
        if self._staged.put is not None:
            if self._staged.put(cx) != number:
                raise OthersWrote
        elif missing and self._insert(cx) != missing:
            raise OthersWrote
        keep([], cx, new_keys)
        return RelayedPart(missing, beside.existing, skipped, beside.lower, first_lower)

    def _beside(self, cx: sa.Connection) -> _Beside:
        table = self._shape.table
        lower = sa.func.count(sa.case((self._is_lower(), 1))) if self._version else sa.literal(0)
        counts = [sa.func.count(self._shape.key[0]), lower]
        pairs = self._staged.table.outerjoin(table, self._has_same_key)
        is_integer = len(self._key) == 1 and self._key[0].type.is_for_integers  # type: ignore[attr-defined] # a ServerType
        ends = [function(self._key[0]) for function in (sa.func.min, sa.func.max)] if is_integer else ()
        row = cx.execute(sa.select(*counts, *ends).select_from(pairs)).one()
        return _Beside(row[0], row[1], (row[2], row[3]) if {*map(type, row[2:])} == {int} else None)

    def _is_lower(self) -> sa.ColumnElement[bool]:
        """Whether the staged row's version is lower than that of the row with its key."""
        [version] = self._version
        of_type: Any = version.type  # a ServerType
        lower: sa.ColumnElement[bool] = of_type.in_order(self._by_name[version.name]) < of_type.in_order(version)
        return lower

    def _lower(self, cx: sa.Connection) -> Sequence[tuple[Key, Any, Any]]:
        [version] = self._version
        columns = [*self._key, self._by_name[version.name], version]
        query = sa.select(*columns).where(self._has_same_key, self._is_lower()).order_by(*self._key).limit(_LOWER_NAMED)
        return [(tuple(row[:-2]), row[-2], row[-1]) for row in cx.execute(query)]

    def _new_keys(self, cx: sa.Connection) -> Sequence[Key]:
        query = sa.select(*self._key).where(~sa.exists().where(self._has_same_key)).order_by(*self._key)
        return [tuple(row) for row in cx.execute(query)]

    def update(self, cx: sa.Connection) -> int:
        """Gives the rows of the table the values of the staged rows with the same keys, and returns their number."""
        update = refusing(self._shape.table.update()).values(self._values).where(self._has_same_key)
        return cx.execute(update.execution_options(preserve_rowcount=True)).rowcount

    def _insert(self, cx: sa.Connection) -> int:
        """Inserts the staged rows whose keys have no row, and returns their number."""
        query = sa.select(*self._by_name.values()).where(~sa.exists().where(self._has_same_key))
        insert = refusing(self._shape.table.insert()).from_select([*self._names], query, include_defaults=False)
        return cx.execute(insert.execution_options(preserve_rowcount=True)).rowcount
