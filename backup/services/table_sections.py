"""Which sections of backup.toml count for a table or container of a set. Asks no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from backup.config.set_settings import SetSection, TableSection
from backup.core.patterns import NameIndex, PatternIndex, is_pattern

_OF_A_TRANSFORM = frozenset({"transform", "transform_version", "types"})


class OwnOptions(NamedTuple):
    """What the sections of a table say, and by the name of an option the name of the section that says it."""

    options: TableSection
    told_by: Mapping[str, str]


class TableSections:
    """The sections of one set, by the tables for which they stand. For any thread."""

    def __init__(self, section: SetSection, tables: Iterable[str] = ()) -> None:
        """`tables` are those that the set may have. A section whose name is that of one of them, letter by letter,
        does not count for another one that differs from it in case."""
        self._sections = section.sections
        self._patterns = PatternIndex(self._sections)
        self._of_table: dict[str, list[str]] = {table: [] for table in tables}
        index = NameIndex(self._of_table)
        for name in self._sections if self._of_table else ():
            for table in index.matching(name):
                self._of_table[table].append(name)

    def of(self, table: str) -> OwnOptions:
        """What counts for the table. Each option is taken whole from one section: one that names the table counts
        before one whose name is a pattern, and of several the first in the file."""
        names = self._of_table.get(table)
        names = [*self._patterns.standing_for(table)] if names is None else names
        told_by = dict[str, str]()
        for name in sorted(names, key=is_pattern):
            options = self._sections[name].model_fields_set
            if "transform" in told_by:
                options = options - _OF_A_TRANSFORM
            told_by = {**dict.fromkeys(options, name), **told_by}
        values = {option: getattr(self._sections[name], option) for option, name in told_by.items()}
        return OwnOptions(TableSection().model_copy(update=values), told_by)
