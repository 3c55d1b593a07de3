"""Images of a table's rows that its server puts into the bin by itself, so that they never become values here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.core.key_ranges import KeyRange
from backup.core.model import Key
from backup.stores.exact_json import is_one_integer, key_to_text
from backup.stores.key_hash import digest_of, ordered_digits

LARGEST_BYTES = 1 << 17
"""How large a row may be at most. Its image is then shorter than one that this process would compress, even if JSON
takes six characters for each byte."""


class EntryIds(NamedTuple):
    """How the ids of entries are made: where the key is one integer of 64 bits, `id_start` and the sixteen hexadecimal
    digits of the key plus 2^63; else `digest_start` and what `key_hash.digest_of` makes of `digested` and the key's
    text."""

    id_start: str
    digest_start: str
    digested: str

    def of(self, key: Key, text: str | None = None) -> str:
        """The id of the entry of this key, whose `text` may be given."""
        if is_one_integer(key):
            return f"{self.id_start}{ordered_digits(key[0])}"
        return f"{self.digest_start}{digest_of(f'{self.digested}{text or key_to_text(key)}')}"


class ImagesToMake(NamedTuple):
    """The entries that a server makes of rows of one table. Their fields are those of `recycle_bin.entries.of_one`:

    - EntryId: as `ids` says;
    - KeyHash: what `key_hash.key_hash` makes of the key;
    - RecordKey, Version: JSON lists of the key's and the version's values, as `exact_json.key_to_text` spells them;
    - Record: JSON that `exact_json.record_from_text` reads as the values of `columns`, by their names. Another spelling
      of the same JSON is as good: spaces, other escapes, digits after the point;
    - `fields`: values that all of them share.

    Without `columns`, the entries are of keys that have been inserted: Version and Record are NULL.

    `bin` is the table of the entries. `key` are the key's columns. With `ends`, the key is one integer, and no row has
    one below the first or above the second of them. `computed`: the table has columns whose values it computes. No row
    may be so large that its image would be in parts: see `LARGEST_BYTES`.
    """

    bin: sa.Table
    ids: EntryIds
    fields: Mapping[str, Any]
    key: Sequence[sa.Column[Any]]
    version: Sequence[sa.Column[Any]]
    columns: Sequence[sa.Column[Any]]
    ends: KeyRange | None
    computed: bool = False

    @property
    def table(self) -> sa.Table:
        """The table of the rows."""
        table = self.key[0].table
        assert isinstance(table, sa.Table)  # noqa: S101 - for mypy
        return table

    def entries(self, made: Mapping[str, sa.ColumnElement[Any]], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """The entries of the rows that fulfil the condition: the expressions `made`, then the shared values."""
        shared = (sa.literal(value, self.bin.c[name].type).label(name) for name, value in self.fields.items())
        return sa.select(*made.values(), *shared).where(condition)

    def may_have_id(self, ends: KeyRange) -> sa.ColumnElement[bool]:
        """The condition on the bin that an entry may have the id of one of the rows, whose keys lie between the
        ends."""
        first, last = (self.ids.of((key,)) for key in ends)
        return self.bin.c["EntryId"].between(first, last)
