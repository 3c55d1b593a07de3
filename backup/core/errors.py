"""The error tree. A class docstring is the default message, `hint` says what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar


class BackupError(Exception):
    """The backup failed."""

    retryable: ClassVar[bool] = False
    hint: str = ""
    session_dropped: bool = False
    """Whether the connection on which it happened was dropped because its session may have been the reason."""

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        # `python -OO` has no docstrings.
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0])
        if hint is not None:
            self.hint = hint


class ConfigError(BackupError):
    """A setting is missing or contradicts another."""


class BadRequest(BackupError):
    """The request is malformed."""


class Forbidden(BackupError):
    """The caller has no role that may do this."""


class UnknownService(BackupError):
    """No such service is configured."""


class NotInitialized(ConfigError):
    """The backup has no place for this data yet."""

    hint = "Run initialize: POST /api/backup/initialize or `python -m backup initialize`."


class SchemaMismatch(ConfigError):
    """Source and backup do not have the same shape.

    `columns` of the backup must be altered by hand and keep their old values; the next run then copies every record.
    """

    def __init__(self, message: str | None = None, *, hint: str | None = None, columns: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.columns = columns


class Locked(BackupError):
    """A sync of this service is already running."""

    hint = "Wait until it has ended; `python -m backup history` shows it as InProgress."


class LockLost(BackupError):
    """This run no longer holds its lock, so it stopped before its next batch."""

    hint = "Another run may have taken over. Run the sync again; every step may be repeated."


class Stopped(Exception):
    """Another thread of the run failed, so this one stopped before its next step. Nobody is told."""


class Interrupted(BackupError):
    """Interrupted; run it again to continue."""


class Cancelled(BackupError):
    """Cancelled on request. What had been written stays; the next sync does the rest."""


class GuardTripped(BackupError):
    """The run was stopped before its first delete."""

    hint = (
        "Check that the source is the right database. If its records were meant to go, run it once with "
        "--allow-mass-delete or allowMassDelete."
    )


class Conflict(BackupError):
    """Later runs changed the same records."""


class UnknownRun(BackupError):
    """There is no run with this SyncId."""

    hint = "`python -m backup history` lists the runs with their SyncIds."


class UnknownRecord(BackupError):
    """Nobody knows such a record."""

    hint = "Check the key. A record that was deleted is known while the recycle bin has an image of it."


class UnknownJob(BackupError):
    """There is no job with this id."""

    hint = "GET /api/sync/dashboard/jobs lists the jobs with their ids."


class NotVerified(BackupError):
    """Source and backup differ."""

    hint = "Run the sync again, with force if the same records differ again, and `python -m backup verify --full`."


class StoreError(BackupError):
    """The database refused an operation."""


class RightMissing(StoreError):
    """The login lacks a right, so the database refuses it every record."""


class ColumnMissing(StoreError):
    """A table lacks a column that the statement names."""


class RecordRefused(StoreError):
    """The database refused single records; the others were written."""

    def __init__(
        self,
        message: str | None = None,
        *,
        refused: Mapping[tuple[Any, ...], str],
        in_the_way: Collection[tuple[Any, ...]] = (),
    ) -> None:
        """`refused` maps the key of each record that was not written to the reason. `in_the_way`: those of these keys
        whose place another record has, which may fit once others are written or deleted."""
        super().__init__(message)
        self.refused, self.in_the_way = refused, in_the_way


class ConstraintRefused(StoreError):
    """A constraint of the database refused records. They may fit once other records are written or deleted."""

    def __init__(self, message: str | None = None, *, hint: str | None = None, unique: bool = False) -> None:
        """`unique`: other records hold values that must be unique."""
        super().__init__(message, hint=hint)
        self.unique = unique


class RecordsSetAside(BackupError):
    """Some records could not be read or written; all others were."""

    hint = (
        "Failures names the first of them, each with its reason. Mend them, or what refuses them; the next run tries "
        "them again. BackupSync__MaxFailedRecords is how many a run sets aside before it stops."
    )


class SetFailed(BackupError):
    """Some services of a set failed; the others were done."""

    hint = "The log and SyncHistory say why each failed. The next run tries them again."

    def __init__(self, message: str | None = None, *, hint: str | None = None, errors: tuple[BackupError, ...]) -> None:
        """`errors` are those of the services that failed."""
        super().__init__(message, hint=hint)
        self.errors = errors


class SetNotWhole(SetFailed):
    """The set itself failed, such as by a pattern that stands for nothing; services of it may have failed, too."""


class Undecoded(StoreError):
    """A text could not be read, perhaps because the connection's encoding lacks it."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or used."""

    hint = (
        "Check that the server runs and has room on its disk, that its firewall admits this app, and the credentials "
        "in the setting."
    )


class SourceMissing(StoreUnavailable):
    """The source's database, table or container does not exist."""

    hint = (
        "Check the names in the source's settings. Nothing was changed: a source that is not there is not an empty one."
    )


class TransientStoreError(StoreUnavailable):
    """The database did not answer in time or dropped the connection."""

    retryable = True
    hint = "It was tried again and did not recover. The next run will pick up where this one left the backup."

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        unanswered: bool = False,
    ) -> None:
        """`unanswered`: no server was reached at all."""
        super().__init__(message, hint=_UNANSWERED if unanswered and hint is None else hint)
        self.retry_after_seconds, self.unanswered = retry_after, unanswered


_UNANSWERED = (
    "Nothing answers there. Check host and port in the setting, that the server runs, and that its firewall admits "
    "this app."
)


class Unexpected(BackupError):
    """Something went wrong that the app does not know."""

    hint = "The log has a line `unexpected` with the place in the code. Running again is safe."
