"""What becomes of an error that is not the app's own: a BackupError, and a line in the log."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from backup.core.errors import BackupError, Unexpected
from backup.core.log import event

_APP = str(Path(__file__).parents[1])
_PLACES = 5
_NO_THREAD = "can't start new thread"
_LESS = (
    "Give it more of both, or set BackupSync__Parallelism, BackupSync__ChunkSize or BackupSync__BatchBytes lower. "
    "Running again is safe."
)


def safe_text(error: Exception) -> str:
    """Returns the message of one of the app's own errors, and only the type of any other error.

    The message of a foreign error may quote a record.
    """
    return str(error) if isinstance(error, BackupError) else type(error).__name__


def as_backup_error(error: Exception) -> BackupError:
    """Returns the error itself if it is one of the app's own. Else logs it and returns Unexpected.

    The log line has the type of a foreign error and its places in the code: the last ones of the app, and where it was
    raised, which may be in a library. Its message may quote a record, so the message is in neither the log nor the new
    error. What the system lacks (memory, threads, files, space) is said in the system's words.
    """
    if isinstance(error, BackupError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename.startswith(_APP)][-_PLACES:]
    raised_at = [f"{frame.filename}:{frame.lineno}" for frame in frames[-1:]]
    where = "; ".join(dict.fromkeys([*places, *raised_at]))
    event("unexpected", level=logging.ERROR, error=type(error).__name__, at=where)
    reason, hint = f"Unexpected {type(error).__name__}", None
    if isinstance(error, MemoryError) or str(error) == _NO_THREAD:
        reason, hint = "The process got no more memory, or no further thread, from the system", _LESS
    elif isinstance(error, OSError) and error.errno is not None:
        reason = f"The system refused a call: {os.strerror(error.errno)}"
    return Unexpected(f"{reason}. What was written before stays; nothing else was changed.", hint=hint)
