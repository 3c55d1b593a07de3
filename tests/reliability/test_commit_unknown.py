"""A server that carried out what it was told, and a client that never heard so: nothing is counted or kept twice."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from sqlalchemy.engine.default import DefaultDialect

from backup.core.run_values import Run, Status, Trigger
from backup.stores.cosmos import throttle
from tests.emulators.servers import lent_database
from tests.reliability import scenes
from tests.reliability.commits import DeafProxy
from tests.reliability.effort import rounds
from tests.reliability.mortal import written_by
from tests.reliability.scenes import Scene, check_bin, counts_of, difference, look
from tests.scenarios.places import Sql

pytestmark = pytest.mark.timeout(rounds(120, 3600))

Lost = Callable[[int], bool]


def nothing(_: int) -> bool:
    return False


def every_first_answer(n: int) -> bool:
    """Of requests that are repeated until they are heard, those that are not repetitions."""
    return n % 2 == 1


def only(position: int) -> Lost:
    return lambda n: n == position


def check_run(scene: Scene, run: Callable[[Scene], Run]) -> None:
    """Changes the source and lets a run carry it out, which must be right in everything that it says and leaves."""
    backup = scene.service.backup
    scene.rewind()
    before = look(backup)
    scene.change()
    after = scene.service.source.contents()
    whole = difference(after, before.contents)

    ended = run(scene)

    assert (ended.status, ended.error, ended.verified) == (Status.COMPLETED, None, True)
    counts = ended.counts
    assert (counts.inserted, counts.updated, counts.deleted, counts.skipped) == whole
    end = look(backup).since(before)
    assert end.contents == after
    check_bin(end.bin, before.contents, after)
    assert len(end.bin) == sum(whole[:3]), "not exactly one image of each change"
    assert [entry["SyncId"] for entry in end.runs] == [ended.sync_id]
    assert counts_of(end.runs[0]) == whole
    assert end.runs[0]["Status"] == "Completed"
    scene.settle()


def sync(scene: Scene) -> Run:
    [outcome] = scene.registry.sync(scene.service.name, Trigger.CLI)
    return outcome.run


# --- SQLite: a commit that was carried out, and is told as failed -----------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Scene:
    scene = scenes.on_sqlite(tmp_path)
    scene.begin()
    return scene


def note_write(cx: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
    if written_by(statement) is not None:
        cx.info["wrote"] = True


class DeafCommits:
    """Commits of transactions that wrote; where `is_lost` says so of the n-th, it is told as failed, though done."""

    def __init__(self) -> None:
        self.is_lost: Lost = nothing
        self.commits = self.lost = 0
        self._commit: Callable[..., None] = DefaultDialect.do_commit

    def expect(self, is_lost: Lost) -> None:
        self.is_lost, self.commits, self.lost = is_lost, 0, 0

    def do_commit(self, dialect: DefaultDialect, connection: Any) -> None:
        wrote = connection.info.pop("wrote", False)
        self._commit(dialect, connection)
        if wrote:
            self.commits += 1
            if self.is_lost(self.commits):
                self.lost += 1
                error = sqlite3.OperationalError("the connection was lost")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeafCommits]:
    commits = DeafCommits()
    monkeypatch.setattr(DefaultDialect, "do_commit", lambda dialect, cx: commits.do_commit(dialect, cx))
    sa.event.listen(sa.Engine, "after_cursor_execute", note_write)
    yield commits
    sa.event.remove(sa.Engine, "after_cursor_execute", note_write)


def test_any_commit_of_a_sync_may_be_told_as_failed(
    sqlite: Scene, deaf: DeafCommits, subtests: pytest.Subtests
) -> None:
    def run(lost: Lost) -> Callable[[Scene], Run]:
        def losing(scene: Scene) -> Run:
            deaf.expect(lost)
            ended = sync(scene)
            deaf.is_lost = nothing
            return ended

        return losing

    check_run(sqlite, run(nothing))
    for position in range(1, deaf.commits + 1):
        with subtests.test(lost=position):
            check_run(sqlite, run(only(position)))
            assert deaf.lost == 1
    with subtests.test(lost="every first answer"):
        check_run(sqlite, run(every_first_answer))
        assert deaf.lost == deaf.commits / 2


def test_any_commit_of_an_undo_may_be_told_as_failed(
    sqlite: Scene, deaf: DeafCommits, subtests: pytest.Subtests
) -> None:
    before = sqlite.service.backup.contents()
    sqlite.change()
    undone = sync(sqlite)
    counts = undone.counts
    sqlite.save()
    deaf.expect(nothing)
    sqlite.registry.get("customer").undo(undone.sync_id)
    for position in range(deaf.commits + 1):
        with subtests.test(lost=position or "every first answer"):
            sqlite.rewind()
            deaf.expect(only(position) if position else every_first_answer)
            outcome = sqlite.registry.get("customer").undo(undone.sync_id)
            deaf.is_lost = nothing
            assert outcome.error is None
            assert sqlite.service.backup.contents() == before
            took = outcome.run.counts
            assert (took.inserted, took.updated, took.deleted) == (counts.deleted, counts.updated, counts.inserted)
            images = [image for image in look(sqlite.service.backup).bin if image.sync_id == outcome.run.sync_id]
            assert len(images) == len({image.key for image in images}) == took.processed


# --- PostgreSQL: the connection breaks between the commit and its answer ----------------------------------------------


@pytest.fixture
def postgresql(postgres: str) -> Iterator[Scene]:
    with lent_database(postgres) as source, lent_database(postgres) as backup:
        scene = scenes.on_postgres(source, backup)
        scene.begin()
        yield scene


def through(proxy: DeafProxy) -> Callable[[Scene], Run]:
    """Runs a sync whose way to the backup is the proxy."""

    def run(scene: Scene) -> Run:
        direct = scene.service.backup
        assert isinstance(direct, Sql)
        url = sa.make_url(direct.url).set(port=proxy.port).render_as_string(hide_password=False)
        return sync(replace(scene, service=replace(scene.service, backup=replace(direct, url=url))))

    return run


def test_the_connection_may_break_after_any_commit(postgresql: Scene, subtests: pytest.Subtests) -> None:
    assert isinstance(postgresql.service.backup, Sql)
    port = sa.make_url(postgresql.service.backup.url).port
    assert port is not None

    def check(is_lost: Callable[[int, int], bool]) -> DeafProxy:
        with DeafProxy(port, is_lost).running() as proxy:
            check_run(postgresql, through(proxy))
        return proxy

    with DeafProxy(port, lambda n, of_line: False).running() as proxy, commits_that_write(proxy) as writing:
        check_run(postgresql, through(proxy))
    for position in rounds(writing[::12], list(range(1, proxy.commits + 1))):
        with subtests.test(lost=position):
            assert check(lambda n, of_line, lost=position: n == lost).lost == 1  # type: ignore[misc]
    with subtests.test(lost="the second of each connection"):  # its first is a retry
        assert check(lambda n, of_line: of_line == 2).lost > len(writing)


@contextmanager
def commits_that_write(proxy: DeafProxy) -> Iterator[list[int]]:
    """Which of the proxy's commits from here on have anything to commit."""
    numbers: list[int] = []

    def note(cx: sa.Connection) -> None:
        if cx.info.pop("wrote", False) and cx.engine.url.port == proxy.port:
            numbers.append(proxy.commits + 1)

    sa.event.listen(sa.Engine, "after_cursor_execute", note_write)
    sa.event.listen(sa.Engine, "commit", note)
    yield numbers
    sa.event.remove(sa.Engine, "commit", note)
    sa.event.remove(sa.Engine, "after_cursor_execute", note_write)


# --- Cosmos DB: the answer to a request is lost -----------------------------------------------------------------------


@pytest.fixture
def cosmos(tmp_path: Path, cosmos_server: str, cosmos_server_backup: str) -> Scene:
    scene = scenes.on_cosmos(tmp_path, cosmos_server, cosmos_server_backup)
    scene.begin()
    return scene


class DeafTransport:
    """Sends requests; where `is_lost` says so of the n-th that writes a document, its answer is lost.

    The second thing that `is_lost` is told is whether the same request was sent before.
    """

    def __init__(self) -> None:
        self.is_lost: Callable[[int, bool], bool] = lambda n, again: False
        self.writes = self.lost = self.repeated = 0
        self._sent: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        self._send: Callable[..., Any] = RequestsTransport.send

    def expect(self, is_lost: Callable[[int, bool], bool]) -> None:
        self.is_lost, self.writes, self.lost, self.repeated = is_lost, 0, 0, 0
        self._sent.clear()

    def send(self, transport: RequestsTransport, request: Any, **options: Any) -> Any:
        answer = self._send(transport, request, **options)
        if self._writes(request) and self._is_lost(request):
            raise ServiceResponseError("the connection was lost")
        return answer

    def _writes(self, request: Any) -> bool:
        query = "x-ms-documentdb-isquery" in {name.lower() for name in request.headers}
        return request.method in ("POST", "PUT", "DELETE") and "/docs" in request.url and not query

    def _is_lost(self, request: Any) -> bool:
        with self._lock:
            signature = (request.method, request.url, str(request.body))
            again = signature in self._sent
            self._sent.add(signature)
            self.writes += 1
            self.repeated += again
            lost = self.is_lost(self.writes, again)
            self.lost += lost
            return lost


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> DeafTransport:
    made = DeafTransport()
    monkeypatch.setattr(RequestsTransport, "send", lambda own, request, **options: made.send(own, request, **options))
    return made


def losing(transport: DeafTransport, is_lost: Callable[[int, bool], bool]) -> Callable[[Scene], Run]:
    def run(scene: Scene) -> Run:
        transport.expect(is_lost)
        ended = sync(scene)
        transport.is_lost = lambda n, again: False
        return ended

    return run


def test_every_answer_to_a_write_may_be_lost_once(cosmos: Scene, transport: DeafTransport) -> None:
    check_run(cosmos, losing(transport, lambda n, again: not again))
    assert transport.lost == transport.repeated == transport.writes / 2 > 0


def test_the_answer_to_any_write_may_be_lost(
    cosmos: Scene, transport: DeafTransport, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "AT_MOST", 1)  # the n-th write is the same in every run
    check_run(cosmos, losing(transport, lambda n, again: False))
    positions = range(1, transport.writes + 1)
    for position in rounds(positions[:: len(positions) // 2 + 1], positions):
        with subtests.test(lost=position):
            check_run(cosmos, losing(transport, lambda n, again, lost=position: n == lost))  # type: ignore[misc]
            assert (transport.lost, transport.repeated) == (1, 1)
