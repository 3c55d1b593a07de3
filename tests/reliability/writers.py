"""Live writers: threads that insert, update and delete in a source while a run syncs it.

Each thread has its own seeded generator and its own keys, so no thread waits for another's record.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg
from azure.cosmos import exceptions

from tests.emulators.clients import cosmos_client

DEADLINE_SECONDS = 60
PAUSE_SECONDS = 0.004
_STEP = 10
_RETURNING_RESIDUE = _STEP - 1
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Hand(Protocol):
    """The connection of one writer to the source. A number names each record."""

    def insert(self, number: int, value: int) -> None: ...

    def update(self, number: int, value: int) -> None:
        """Changes the content and raises the version, in one statement."""

    def delete(self, number: int) -> None: ...

    def close(self) -> None: ...


class Writers:
    """Writers on a source. `with` starts them, and ends them unless `stop` did.

    There are three kinds of records. `fill` inserts the `lasting` records; the threads update them and never delete
    them. Passing records are few: each thread inserts, updates and deletes its own. `returning` records are deleted by
    `take_away` and inserted again by `bring_back`; no thread writes them.
    """

    def __init__(
        self,
        open_hand: Callable[[], Hand],
        seed: int,
        *,
        lasting: int = 500,
        threads: int = 3,
        passing: int = 6,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """`lasting` is how many lasting records there are, `passing` how many passing records a thread has at most."""
        if not threads < _RETURNING_RESIDUE:
            raise ValueError(f"at most {_RETURNING_RESIDUE - 1} threads")
        self.lasting = range(_STEP, (lasting + 1) * _STEP, _STEP)
        # At the beginning of the key space, so in the chunk that a sync reads first.
        self.returning = range(_STEP + _RETURNING_RESIDUE, _STEP * 6 + _RETURNING_RESIDUE, _STEP)
        self.done: Counter[str] = Counter()
        self._values = count(1)  # each write takes the next, so no two writes have the same version
        self._open_hand, self._seed, self._passing, self._pause_seconds = open_hand, seed, passing, pause_seconds
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(1, threads + 1)]
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None

    def fill(self) -> None:
        """Inserts the lasting and the returning records."""
        hand = self._open_hand()
        for number in (*self.lasting, *self.returning):
            hand.insert(number, 0)
        hand.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def stop(self) -> None:
        """Ends the writers, and returns after the last write. Raises RuntimeError if a writer failed."""
        self._end()
        self._raise_failure()

    def _end(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)

    def wait_for(self, writes: int) -> None:
        """Waits until the writers have made so many further writes. Raises RuntimeError if a writer failed."""
        with self._changed:
            aim = self.done.total() + writes
            reached = self._changed.wait_for(lambda: self._failure or self.done.total() >= aim, DEADLINE_SECONDS)
        self._raise_failure()
        if not reached:
            raise TimeoutError(f"the writers made {self.done}, and not {writes} writes since")

    def take_away(self) -> None:
        """Deletes the returning records."""
        self._at_once(lambda hand, number: hand.delete(number))

    def bring_back(self) -> None:
        """Inserts the returning records again."""
        self._at_once(lambda hand, number: hand.insert(number, 0))

    def _at_once(self, work: Callable[[Hand, int], None]) -> None:
        hand = self._open_hand()
        for number in self.returning:
            work(hand, number)
        hand.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"a writer ended with {self._failure!r}") from self._failure

    def _write(self, thread: int) -> None:
        try:
            hand = self._open_hand()
            try:
                self._write_with(hand, thread, random.Random(f"{self._seed} {thread}"))
            finally:
                hand.close()
        except BaseException as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _write_with(self, hand: Hand, thread: int, chance: random.Random) -> None:
        own_lasting = self.lasting[thread - 1 :: len(self._threads)]
        passing: list[int] = []
        while not self._stopping.wait(self._pause_seconds):
            value = next(self._values)
            verb = chance.choice(("insert", "update", "update passing", "delete"))
            if verb == "insert" and len(passing) < self._passing:
                number = chance.choice(self.lasting) + thread
                if number in passing:
                    continue
                hand.insert(number, value)
                passing.append(number)
            elif verb == "delete" and passing:
                hand.delete(passing.pop(chance.randrange(len(passing))))
            elif verb == "update passing" and passing:
                hand.update(chance.choice(passing), value)
            else:
                verb = "update"
                hand.update(chance.choice(own_lasting), value)
            with self._changed:
                self.done[verb.partition(" ")[0]] += 1
                self._changed.notify_all()


@dataclass
class SqlHand:
    """Writes rows of a table with Id, Name, Balance and Version through a driver. `mark` is its parameter marker."""

    run: Callable[[str, Sequence[Any]], Any]
    close_connection: Callable[[], None]
    table: str
    mark: str

    def insert(self, number: int, value: int) -> None:
        self._run(
            'INSERT INTO {} ("Id", "Name", "Balance", "Version") VALUES (?, ?, ?, ?)', number, f"v{value}", value, value
        )

    def update(self, number: int, value: int) -> None:
        self._run(
            'UPDATE {} SET "Name" = ?, "Balance" = ?, "Version" = ? WHERE "Id" = ?',
            *(f"v{value}", value, value, number),
        )

    def delete(self, number: int) -> None:
        self._run('DELETE FROM {} WHERE "Id" = ?', number)

    def _run(self, statement: str, *values: Any) -> None:
        self.run(statement.format(self.table).replace("?", self.mark), values)

    def close(self) -> None:
        self.close_connection()


COLUMNS = '"Id" INTEGER PRIMARY KEY, "Name" VARCHAR(40), "Balance" NUMERIC(18, 2), "Version" INTEGER NOT NULL'


def sqlite_hand(path: Path, table: str) -> Hand:
    """A hand on a SQLite file. Every statement is its own transaction, and waits for the file's lock."""
    connection = sqlite3.connect(path, timeout=DEADLINE_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")  # a test that loses power is run again
    return SqlHand(connection.execute, connection.close, table, "?")


def postgres_hand(address: str, table: str) -> Hand:
    """A hand on PostgreSQL. Every statement is its own transaction. The caller has quoted `table`."""
    connection = psycopg.connect(address, autocommit=True)

    def run(statement: str, values: Sequence[Any]) -> None:
        connection.execute(statement, values)

    return SqlHand(run, connection.close, table, "%s")


class CosmosHand:
    """Writes documents of type Order, partitioned by /customerId; each change has a later lastModified."""

    def __init__(self, account: str, database: str, container: str) -> None:
        self._client = cosmos_client(account, enable_endpoint_discovery=False)
        self._container = self._client.get_database_client(database).get_container_client(container)
        self._changes: Counter[int] = Counter()

    def insert(self, number: int, value: int) -> None:
        self._put(number, value)

    def update(self, number: int, value: int) -> None:
        self._put(number, value)

    def _put(self, number: int, value: int) -> None:
        self._changes[number] += 1
        modified = _START + timedelta(seconds=number, milliseconds=self._changes[number])
        self._container.upsert_item(
            {
                "id": order_id(number),
                "type": "Order",
                "customerId": _customer(number),
                "status": {"id": value % 3, "name": f"status {value % 3}"},
                "lastModified": modified.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "total": value,
            },
            no_response=True,
        )

    def delete(self, number: int) -> None:
        try:
            self._container.delete_item(order_id(number), partition_key=_customer(number))
        except exceptions.CosmosResourceNotFoundError as error:
            raise AssertionError("a writer's record was deleted by another") from error

    def close(self) -> None:
        self._client.__exit__()  # type: ignore[no-untyped-call]


def order_id(number: int) -> str:
    """The id of an order; ids sort as their numbers do."""
    return f"order-{number:06}"


def _customer(number: int) -> str:
    return f"customer-{number % 20}"
