"""Gives a backup's table the secondary indexes of its source's, after a sync. An index that is refused fails no run."""

from __future__ import annotations

import logging

from backup.core.errors import StoreError, StoreUnavailable
from backup.core.log import event
from backup.runs.session import Session


def follow_indexes(session: Session) -> None:
    """Makes the indexes that the backup lacks, and notes each, with those that the server refuses. Drops none.

    Cost: a reading of both catalogues, and the making of an index for each that is new. Raises StoreUnavailable,
    LockLost and what a reading raises; the indexes made before stay.
    """
    relational = session.backup.relational
    if relational is None or not session.backup.traits.follows_indexes:
        return
    for index in relational.index_plan(session.source).missing:
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
