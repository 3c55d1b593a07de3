"""Which tables of a set are new: those that its source did not have when the set began.

One without a copy is not new if it was there. A first sync that died, failed, or was of one table alone leaves such.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from backup.core.errors import BackupError
from backup.core.patterns import same_name
from backup.runs.set_beginning import SetBeginning
from backup.runs.set_tables import first_tables
from backup.services.set_specs import SetSpecs
from backup.services.unbegun import MARK_OF_COPIES
from backup.stores import Listed


class Fate(NamedTuple):
    """What becomes of the tables of a set that have no copy.

    `later`: those that `on_new_table` is about. `undecided`: those of which nobody can tell now, because of `error`.
    `beginning`: of a set of which nothing is in the backup yet.
    """

    later: Collection[str] = ()
    undecided: Collection[str] = ()
    error: BackupError | None = None
    beginning: SetBeginning | None = None

    @property
    def may_change(self) -> bool:
        """Whether it holds for one call alone."""
        return self.error is not None or self.beginning is not None


def fate_of(
    specs: SetSpecs,
    chosen: Collection[str],
    without_copy: Collection[str],
    copies: Sequence[Listed] | BackupError,
    in_source: Sequence[str],
) -> Fate:
    """Returns what becomes of the tables `without_copy`, of all that the set has `chosen`. Raises no error.

    `copies`: the tables in the backup that have a name of the set; or why nobody can tell. Costs one query where
    `on_new_table` is not "add" and there is such a table, else nothing.
    """
    takes_all = specs.section.on_new_table in (None, "add")
    if isinstance(copies, BackupError) and not takes_all:
        return Fate(undecided=chosen, error=copies)
    if isinstance(copies, BackupError) or not any(_is_marked(specs, listed) for listed in copies):
        return Fate(beginning=SetBeginning(specs.name, in_source))
    if takes_all or not without_copy:
        return Fate()
    try:
        with specs.beside() as backup:
            first = first_tables(backup, specs.name)
    except BackupError as error:
        return Fate(undecided=without_copy, error=error)
    # An earlier release has kept no names: what has no copy is new.
    return Fate(frozenset(name for name in without_copy if first is None or not same_name(name, first)))


def _is_marked(specs: SetSpecs, listed: Listed) -> bool:
    """Whether the app has made the table, as far as a catalogue tells."""
    return specs.section.is_cosmos or any(column.name == MARK_OF_COPIES for column in listed.columns)
