"""What a plan says of a set itself: which tables and views it leaves out, and the order of the others. Runs nothing."""

from __future__ import annotations

from backup.services.sets import ServiceSet
from backup.services.table_order import cycle_text, parents_first

_NAMED_AT_MOST = 20


def notes_of_set(own_set: ServiceSet) -> list[str]:
    """Returns what is to say of the set beside its services: tables that are left out, and the order of the others."""
    return [
        *(f"{own_set.name}: {table} is gone from the source. Its copy stays." for table in own_set.members.gone),
        *(f"{own_set.name}: {table} is new, and on_new_table is ignore." for table in own_set.members.ignored),
        *_view_notes(own_set),
        *_order_notes(own_set),
    ]


def _view_notes(own_set: ServiceSet) -> list[str]:
    """What fits a pattern of the set and is left out all the same."""
    views = own_set.members.views
    if not views:
        return []
    named = ", ".join(views[:_NAMED_AT_MOST]) + (" …" if len(views) > _NAMED_AT_MOST else "")
    are = "is" if len(views) == 1 else "are"
    why = "Views and tables of other servers take part once a section names their key."
    return [f"{own_set.name}: {named} {are} left out. {why}"]


def _order_notes(own_set: ServiceSet) -> list[str]:
    """In which order foreign keys put the tables, and which cycles they form."""
    order = parents_first([*own_set.members.specs], own_set.foreign_keys.known())
    levels = [linked for level in order.levels if (linked := [table for table in level if table in order.linked])]
    notes = [f"{own_set.name}: {cycle_text(cycle)}" for cycle in order.cycles]
    if levels:
        texts = [", ".join(level[:_NAMED_AT_MOST]) + (" …" if len(level) > _NAMED_AT_MOST else "") for level in levels]
        notes.append(f"{own_set.name}: by its foreign keys a restore writes {'; then '.join(texts)}.")
    return notes
