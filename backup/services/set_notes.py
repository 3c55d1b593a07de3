"""What a plan says of a set itself: what it leaves out, and the order of the others. Writes nothing."""

from __future__ import annotations

from backup.core.errors import BackupError, StoreError
from backup.core.patterns import PatternIndex
from backup.services.left_out import as_left_out, left_out_texts
from backup.services.sets import ServiceSet
from backup.services.table_order import cycle_text, parents_first
from backup.stores.sides import list_passed_over

_NAMED_AT_MOST = 20


def notes_of_set(own_set: ServiceSet) -> list[str]:
    """Returns what is to say of the set beside its services: what is left out, and the order of the others. Asks the
    source once. Raises no error of it."""
    return [
        *(f"{own_set.name}: {table} is gone from the source. Its copy stays." for table in own_set.members.gone),
        *(f"{own_set.name}: {table} is new, and on_new_table is ignore." for table in own_set.members.ignored),
        *_left_out_notes(own_set),
        *_order_notes(own_set),
    ]


def _left_out_notes(own_set: ServiceSet) -> list[str]:
    """What fits a pattern of the set and is left out all the same. Asks the source."""
    members, specs = own_set.members, own_set.specs
    if any(isinstance(error, StoreError) for error in members.errors):
        return []  # the source could not be asked, as the plan says elsewhere
    try:
        in_source = list_passed_over(specs.side("source"), specs.limits)
    except BackupError as error:
        return [f"{own_set.name}: what is left out could not be listed: {error}"]
    fitting = PatternIndex(specs.section.patterns)
    excluded = PatternIndex(specs.section.exclude)
    chosen = [each for each in in_source if fitting.first(each.name) and not excluded.first(each.name)]
    return [f"{own_set.name}: {text}" for text in left_out_texts([*map(as_left_out, members.views), *chosen])]


def _order_notes(own_set: ServiceSet) -> list[str]:
    """In which order foreign keys put the tables, and which cycles they form."""
    order = parents_first([*own_set.members.specs], own_set.foreign_keys.known())
    levels = [linked for level in order.levels if (linked := [table for table in level if table in order.linked])]
    notes = [f"{own_set.name}: {cycle_text(cycle)}" for cycle in order.cycles]
    if levels:
        texts = [", ".join(level[:_NAMED_AT_MOST]) + (" …" if len(level) > _NAMED_AT_MOST else "") for level in levels]
        notes.append(f"{own_set.name}: by its foreign keys a restore writes {'; then '.join(texts)}.")
    return notes
