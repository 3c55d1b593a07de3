"""Runs one piece of SQL work: a connection, a transaction, the retries, and errors in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from backup.errors import BackupError, StoreError, StoreUnavailable, TransientStoreError
from backup.retry import Retry
from backup.stores.dialects import Dialect

T = TypeVar("T")


class SqlAccess:
    """One side's way to its database. `missing` is the error for a database or table that is not there."""

    def __init__(self, dialect: Dialect, retry: Retry, missing: type[BackupError], label: str) -> None:
        self.dialect, self.missing, self.label = dialect, missing, label
        self._retry = retry
        self._engine_used = False

    def run(self, operation: str, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, done in one transaction, as often as the retry rule says; so it must bear repetition."""
        return self._retry.call(f"{operation}: {self.label}", lambda: self.once(operation, work))

    def once(self, operation: str, work: Callable[[sa.Connection], T]) -> T:
        """The same in one try."""

        def transaction() -> T:
            with self.dialect.engine.begin() as cx:
                return work(cx)

        return self.translated(operation, transaction)

    def translated(self, operation: str, work: Callable[[], T]) -> T:
        """What `work` returns; the driver's errors become the app's own, without the values they quote."""
        self._engine_used = True
        try:
            return work()
        except BackupError:
            raise
        except sa.exc.DBAPIError as error:
            raise self._error(operation, error.orig or error) from None
        except sa.exc.TimeoutError:
            raise TransientStoreError(f"Could not {operation} in the {self.label}: no connection was free.") from None
        except Exception as error:
            if type(error).__module__.startswith("azure."):
                raise StoreUnavailable(
                    f"Could not {operation} in the {self.label}: the managed identity could not log in ({type(error).__name__}).",
                    hint="Enable the app's identity and grant it access, or put a password into the connection string.",
                ) from None
            raise

    def _error(self, operation: str, error: BaseException) -> BackupError:
        failure = self.dialect.failure(error if isinstance(error, Exception) else Exception(str(error)))
        message = f"Could not {operation} in the {self.label}: {failure.text}"
        match failure.kind:
            case "database_missing" | "missing":
                return self.missing(message)
            case "transient":
                return TransientStoreError(message)
            case "unavailable":
                return StoreUnavailable(message)
            case _:
                return StoreError(message, hint="The batch was rolled back; what was written before it stays.")

    def close(self) -> None:
        """Closes the connections; the next use opens new ones."""
        if self._engine_used:
            self.dialect.engine.dispose()
