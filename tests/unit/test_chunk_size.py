"""How large chunks are: as large as they may be, unless statements take long."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Thread

import pytest

from backup.core.errors import StoreError
from backup.stores.chunk_size import ChunkSize


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Server:
    """Statements that take so long for each record."""

    largest: int = 50_000
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.chunk_size = ChunkSize(self.largest, 2.0, self.clock)

    def statement(self, records: int, seconds: float) -> int:
        with self.chunk_size.measuring() as measured:
            self.clock.now += seconds
            measured.records = records
        return self.chunk_size.chunk_size


def test_a_chunk_is_as_large_as_it_may_be_before_anything_is_known() -> None:
    assert Server().chunk_size.chunk_size == 50_000


def test_a_fast_server_keeps_its_chunks() -> None:
    assert Server().statement(50_000, 0.9) == 50_000


def test_the_next_statement_takes_half_of_what_it_may() -> None:
    assert Server().statement(50_000, 5.0) == 10_000


def test_chunks_grow_again_slowly() -> None:
    server = Server()
    sizes = [server.statement(50_000, 5.0), *(server.statement(10_000, 0.01) for _ in range(20))]
    assert sizes == sorted(sizes)
    assert sizes[1] < 15_000
    assert sizes[-1] == 50_000


def test_no_chunk_gets_too_small_to_be_worth_a_statement() -> None:
    assert Server().statement(50_000, 10_000.0) == 1_000


def test_a_statement_about_many_chunks_takes_half_of_what_it_may() -> None:
    server = Server()
    assert server.chunk_size.at_once == 0
    server.statement(1 << 15, 0.25)
    assert server.chunk_size.at_once == 1 << 17


def test_chunks_that_are_small_anyway_stay_as_they_are() -> None:
    assert Server(largest=7).statement(7, 100.0) == 7


@pytest.mark.parametrize("records", [0, 3, 999])
def test_a_statement_about_few_records_says_nothing(records: int) -> None:
    assert Server().statement(records, 100.0) == 50_000


def test_a_statement_that_fails_says_nothing() -> None:
    server = Server()

    def fail() -> None:
        with server.chunk_size.measuring(50_000):
            server.clock.now += 100
            raise StoreError

    with pytest.raises(StoreError):
        fail()
    assert server.chunk_size.chunk_size == 50_000


def test_threads_may_share_it() -> None:
    server = Server()
    threads = [Thread(target=lambda: [server.statement(50_000, 5.0) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1_000 <= server.chunk_size.chunk_size <= 10_000
