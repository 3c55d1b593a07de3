"""What stands between a mistake in the source and the deletes it would cause."""

from __future__ import annotations

from backup.errors import GuardTripped


def refuse_empty_source(source_records: int, deletes: int, label: str) -> None:
    """Raises GuardTripped when the source holds no record at all and the backup would be emptied for it."""
    if source_records == 0 and deletes > 0:
        raise GuardTripped(
            f"The {label} holds no records, while its backup holds {deletes}. Nothing was deleted.",
            hint="Check that it is the right database and was not truncated. If it is meant to be empty, empty the "
            "backup by hand.",
        )
