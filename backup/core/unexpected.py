"""What becomes of an error that is not the app's own: a BackupError, and a line in the log."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from backup.core.errors import BackupError, Unexpected
from backup.core.log import event

_APP = str(Path(__file__).parents[1])
_PLACES = 5


def safe_text(error: Exception) -> str:
    """Returns the message of one of the app's own errors, and only the type of any other error.

    The message of a foreign error may quote a record.
    """
    return str(error) if isinstance(error, BackupError) else type(error).__name__


def as_backup_error(error: Exception) -> BackupError:
    """Returns the error itself if it is one of the app's own. Else logs it and returns Unexpected.

    The log line has the type of a foreign error and its places in the code: the last ones of the app, and where it was
    raised, which may be in a library. Its message may quote a record, so the message is in neither the log nor the new
    error.
    """
    if isinstance(error, BackupError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename.startswith(_APP)][-_PLACES:]
    raised_at = [f"{frame.filename}:{frame.lineno}" for frame in frames[-1:]]
    where = "; ".join(dict.fromkeys([*places, *raised_at]))
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    return Unexpected(f"Unexpected {type(error).__name__}. What was written before stays; nothing else was changed.")
