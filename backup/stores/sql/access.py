"""One side's transactions on a SQL server: tries, connections, time limits, and errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from backup.core import interrupts
from backup.core.errors import (
    BackupError,
    ColumnMissing,
    ConstraintRefused,
    NotInitialized,
    RightMissing,
    StoreError,
    StoreUnavailable,
    TransientStoreError,
    Undecoded,
)
from backup.core.retry import Attempt, Retry
from backup.stores.calls import CallEnded, TimedCall
from backup.stores.left_calls import left_in_time
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.opening import CALL_SECONDS
from backup.stores.sql.engines.snapshot import Snapshot, SnapshotLost, SnapshotReads
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.held import HeldConnection
from backup.stores.sql.pool import SharedPool

_OF_RECORDS = ("refused", "constraint", "unique", "undecoded")


class SqlAccess:
    """One side's way to its database. `missing` is the error for a database or table that does not exist.

    Every call ends after `call_seconds`. A transaction that writes calls `fence`, if it is set, before it commits.
    """

    def __init__(
        self, dialect: Dialect, retry: Retry, missing: type[BackupError], label: str, call_seconds: float = CALL_SECONDS
    ) -> None:
        self.dialect, self.missing, self.label = dialect, missing, label
        self.fence: Callable[[sa.Connection, bool], None] | None = None
        self.names: set[str] = set()
        """The names of this side's tables and schemas, in lower case. The side is not initialized only if one of these
        is missing."""

        self.hides_values = False
        """Whether the side's records have values that no error may show: those that a source's masks hide."""

        self.snapshot: SnapshotReads | None = None
        """Where it reads, if that is a snapshot, as long as this is held."""

        self._retry, self._call_seconds = retry, call_seconds
        self._held: HeldConnection | None = None

    def attempts(
        self,
        operation: str,
        *,
        writes: bool = False,
        fenced: bool = True,
        seconds: float | None = None,
        single: bool = False,
    ) -> Iterator[Attempt[sa.Connection]]:
        """The tries of a transaction, as many as the retry rule says. Each try, used by `with`, gives a connection and
        commits at the end:

            for attempt in access.attempts("count"):
                with attempt as cx:
                    count = cx.scalar(query)

        The body may run more than once. Pass `writes` for a body that writes: on SQLite it waits for its turn, and it
        commits only if the fence lets it. Only writes of the run's own entry pass `fenced=False`. A try ends after
        `seconds`, if this is less than every call's limit. One more try follows if the first met a text that the
        dialect has to read in another way, or an error of which the session may be the reason. `single`: the body is a
        single statement that reads, and needs no transaction.
        """
        once = partial(self.once, operation, writes=writes, fenced=fenced, seconds=seconds, single=single)
        return self._retry.attempts_in(f"{operation}: {self.label}", lambda again: once(again=again), self._is_mended)

    @contextmanager
    def once(
        self,
        operation: str,
        *,
        writes: bool = False,
        fenced: bool = True,
        again: bool = False,
        seconds: float | None = None,
        single: bool = False,
    ) -> Iterator[sa.Connection]:
        """One try of a transaction. `again`: an earlier try may still be running on the server."""
        snapshot = self.snapshot.current if self.snapshot is not None and not writes else None
        with (
            snapshot.turn() if snapshot is not None else nullcontext(),  # to wait for it is not a part of the call
            self._in_words(operation, seconds, writes) as limit,
            TimedCall(limit) as call,
            ExitStack() as stack,
        ):
            with call.in_this_thread():
                cx = self._connection(stack, snapshot, writes=writes, single=single)
            call.end_with(self.dialect.cut(cx))
            yield cx
            if writes and fenced and self.fence is not None:
                self.fence(cx, again)
            call.check()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, what this thread reads from a database that is a library in this process shares a connection."""
        if not self.dialect.in_process or self._held is not None:
            yield
            return
        try:
            with HeldConnection(self.dialect.reading, self.dialect.leads_there) as self._held:
                yield
        finally:
            self._held = None

    def _connection(self, stack: ExitStack, snapshot: Snapshot | None, *, writes: bool, single: bool) -> sa.Connection:
        """The connection of a try, which ends with the stack."""
        dialect, held = self.dialect, self._held
        if snapshot is not None:
            return stack.enter_context(dialect.reading_in(snapshot))
        if held is not None and held.is_of_this_thread:
            stack.push(held.after)
            return stack.enter_context(dialect.writing_over(held.connection)) if writes else held.connection()
        return stack.enter_context(dialect.writing() if writes else dialect.asking() if single else dialect.reading())

    @property
    def lost_connections(self) -> int:
        """As `Relational.lost_connections`."""
        pool = None if self.dialect.in_process else self.dialect.engine.pool
        return pool.lost_connections if isinstance(pool, SharedPool) else 0

    def begin_snapshot(self, tables: Sequence[TableName]) -> Snapshot:
        """Begins a snapshot, as `Dialect.begin_snapshot` says. Raises what a store raises."""
        operation = "begin to read as of one moment"
        attempts = self._retry.attempts_in(f"{operation}: {self.label}", lambda _: nullcontext(), self._is_mended)
        for attempt in attempts:
            with (
                attempt,
                self._in_words(operation, writes=False) as limit,
                TimedCall(limit) as call,
                call.in_this_thread(),
            ):
                snapshot = self.dialect.begin_snapshot(tables)
        return snapshot

    def _is_mended(self, error: Exception) -> bool:
        if isinstance(error, BackupError) and error.session_dropped:
            return True  # the next try has another session
        return isinstance(error, UnicodeDecodeError | Undecoded) and self.dialect.read_any_text()

    @contextmanager
    def _in_words(self, operation: str, seconds: float | None = None, writes: bool = True) -> Iterator[float]:
        """Gives how many seconds the call may take. Turns its errors into the app's own, without the values that a
        driver quotes."""
        interrupts.check()
        limit = interrupts.seconds_for(min(self._call_seconds, seconds or self._call_seconds))
        try:
            yield limit
        except BackupError:
            raise
        except SnapshotLost:
            raise TransientStoreError(
                f"Could not {operation} in the {self.label} as of one moment: what held it is gone.",
                hint="The next try reads it as it is now, and the run says that it was not read as of one moment.",
            ) from None
        except CallEnded:
            interrupts.check()
            raise TransientStoreError(
                f"Could not {operation} in the {self.label}: there was no answer within {limit:g} s.",
                hint="The call was cut and tried again. To give the server more time, raise BackupSync__MaxCallSeconds,"
                " or BackupSync__MaxStatementSeconds for a call about a chunk.",
            ) from None
        except sa.exc.DBAPIError as error:
            failed = self._error(operation, error.orig or error, writes)
            failed.session_dropped = error.connection_invalidated
            raise failed from None
        except OSError as error:
            raise self._error(operation, error, writes) from None
        except sa.exc.NoSuchTableError:  # gone since the catalogue named it
            raise self.missing(f"The {self.label} does not exist.") from None
        except sa.exc.TimeoutError:
            raise TransientStoreError(f"Could not {operation} in the {self.label}: no connection was free.") from None
        except Exception as error:
            if type(error).__module__.startswith("azure."):
                name = type(error).__name__
                raise StoreUnavailable(
                    f"Could not {operation} in the {self.label}: the managed identity could not log in ({name}).",
                    hint="Enable the app's identity and grant it access, or put a password into the connection string.",
                ) from None
            raise

    def create_database(self, like: SqlAccess | None = None) -> None:
        """Makes the database where missing. A new file gets no more readers than the file of `like` has."""
        original = None if like is None else like.dialect
        self._on_the_server("create the database", lambda: self.dialect.ensure_database(original))

    def drop_database(self) -> None:
        """Drops the database. It is not an error if the database is gone already."""
        self._on_the_server("drop the database", self.dialect.drop_database)

    def _on_the_server(self, operation: str, work: Callable[[], None]) -> None:
        """Does work that has no transaction. The thread that does it is left behind if it takes too long."""
        for attempt in self._retry.attempts(f"{operation}: {self.label}"):
            with attempt, self._in_words(operation) as limit:
                left_in_time(limit, lambda _: work())

    def _error(self, operation: str, error: BaseException, writes: bool) -> BackupError:
        failure = self.dialect.failure(error if isinstance(error, Exception) else Exception(str(error)))
        if self.hides_values and failure.kind in _OF_RECORDS:
            failure = replace(failure, text=_without_words(error))
        message = f"Could not {operation} in the {self.label}: {failure.text}"
        match failure.kind:
            case "missing" if failure.name and not self._is_own(failure.name.lower()):
                return StoreError(message, hint="A view, a function or a value names something that does not exist.")
            case "database_missing":
                return self.missing(f"The {self.label} does not exist: {failure.text}")
            case "missing" if self.missing is NotInitialized:
                return NotInitialized(f"The {self.label} is not initialized: {failure.text}")
            case "missing":
                return self.missing(message)
            case "transient" | "unanswered":
                return TransientStoreError(message, hint=failure.hint, unanswered=failure.kind == "unanswered")
            case "unavailable":
                return StoreUnavailable(message, hint=failure.hint)
            case "column_missing":
                return ColumnMissing(message, hint=failure.hint)
            case "undecoded":
                return Undecoded(message, hint="This call changed nothing.")
            case kind:
                stays = " What was written before stays." if writes else ""
                hint = failure.hint or f"This call changed nothing.{stays}"
                if kind in ("constraint", "unique"):
                    return ConstraintRefused(message, hint=hint, unique=kind == "unique")
                return (RightMissing if kind == "denied" else StoreError)(message, hint=hint)

    def _is_own(self, missing_name: str) -> bool:
        return any(missing_name == name or missing_name.endswith(f".{name}") for name in self.names)

    def close(self) -> None:
        """Gives the connections back. The store can be used again."""
        self.dialect.close()


def _without_words(error: BaseException) -> str:
    """What stands for the words of a server that may quote a record, as those of a trigger do."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or ""
    if not code and error.args and re.fullmatch(r"[0-9A-Z]{5}", str(error.args[0])):
        code = error.args[0]
    reason = f"the server refused it ({code})" if code else "the server refused it"
    return f"{reason}. Its words may quote masked values; only its own log has them."
