"""What becomes of an error that is not the app's own: a BackupError, and a line in the log."""

from __future__ import annotations

import logging
import traceback

from backup.core.errors import BackupError, Unexpected
from backup.core.log import event


def safe_text(error: Exception) -> str:
    """Returns the message of one of the app's own errors, and only the type of any other error.

    The message of a foreign error may quote a record.
    """
    return str(error) if isinstance(error, BackupError) else type(error).__name__


def as_backup_error(error: Exception) -> BackupError:
    """Returns the error itself if it is one of the app's own. Else logs it and returns Unexpected.

    The log line has the type of a foreign error and its places in the code. Its message may quote a record, so the
    message is in neither the log nor the new error.
    """
    if isinstance(error, BackupError):
        return error
    where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:])
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}. What was written before stays; nothing else was changed.")
