"""Errors that nobody foresaw, made the app's own."""

from __future__ import annotations

import logging
import traceback

from backup.core.errors import BackupError, Unexpected
from backup.core.log import event


def foreseen(error: Exception) -> BackupError:
    """The error itself if it is the app's own, else Unexpected; then its kind and its places in the code are logged.

    A foreign error's message may quote a record, so that is neither logged nor told.
    """
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}; what had been written stays, nothing else was changed.")
