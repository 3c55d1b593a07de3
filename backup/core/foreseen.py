"""Turns unexpected errors into the app's own."""

from __future__ import annotations

import logging
import traceback

from backup.core.errors import BackupError, Unexpected
from backup.core.log import event


def foreseen(error: Exception) -> BackupError:
    """Returns the error itself if it is one of the app's own. Else logs it and returns Unexpected.

    The log line has the type of a foreign error and its places in the code. Its message may quote a record, so the
    message is in neither the log nor the new error.
    """
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}. What was written before stays; nothing else was changed.")
