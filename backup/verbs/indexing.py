"""Gives a table the secondary indexes of another, after a sync or a restore. An index that is refused fails no run."""

from __future__ import annotations

import logging

from backup.core.errors import StoreError, StoreUnavailable
from backup.core.log import event
from backup.runs.session import Session
from backup.stores import Store


def follow_indexes(session: Session) -> None:
    """Makes the indexes of the source that the backup lacks, where the rules say so; as `make_indexes`."""
    if session.backup.traits.follows_indexes:
        make_indexes(session, session.backup, session.source)


def make_indexes(session: Session, place: Store, original: Store) -> None:
    """Makes in the place the indexes that it lacks of the original's, and notes each, with those that the server
    refuses. Drops none.

    Cost: a reading of both catalogues, and the making of an index for each that is new. Raises StoreUnavailable,
    LockLost and what a reading raises; the indexes made before stay.
    """
    relational = place.relational
    if relational is None:
        return
    for index in relational.index_plan(original).missing:
        session.steps.check_lock()
        try:
            relational.make_index(index)
        except StoreUnavailable:
            raise
        except StoreError as error:
            event("index.not_made", level=logging.WARNING, service=session.run.service, index=index.name, error=error)
            session.note(f"The index {index.name} could not be made: {error}")
        else:
            session.note(f"The index {index.name} was made, over {', '.join(index.columns)}.")
