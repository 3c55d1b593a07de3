"""Connections that outlive their users: shared, looked at before use, closed when idle, and clean for the next one."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import StoreError, StoreUnavailable
from backup.core.retry import Retry
from backup.stores import Limits, Rules, Store, pools
from backup.stores.calls import long_here
from backup.stores.pools import PoolKey, PoolState
from backup.stores.sides import Side, open_store
from backup.stores.sql.pool import REFUSED_SECONDS, SharedPool

ONE_TRY = Limits(retry=Retry(max_attempts=1))
RULES = Rules(version=("Version",))


def opened(url: str, role: str = "source") -> Any:
    return open_store(Side("customer", role, "SourceCustomerDb", url, table="Things"), RULES, ONE_TRY)  # type: ignore[arg-type]


def state_of(store: Any) -> PoolState:
    location = store.access.dialect.location
    [state] = [state for state in pools.states() if state.server == location]
    return state


def pool_of(store: Any) -> SharedPool:
    pool = store.access.dialect.engine.pool
    assert isinstance(pool, SharedPool)
    return pool


def backend(store: Any) -> int:
    with store.access.once("ask") as cx:
        number: int = cx.scalar(sa.text("SELECT pg_backend_pid()"))
    return number


@pytest.fixture
def things(postgres_database: str) -> Iterator[Store]:
    store = opened(postgres_database)
    with store.access.once("make", writes=True) as cx:
        cx.execute(sa.text('CREATE TABLE "Things" ("Id" int PRIMARY KEY, "Version" int NOT NULL, "Name" text)'))
        cx.execute(sa.text("INSERT INTO \"Things\" VALUES (1, 1, 'a')"))
    yield store
    store.close()
    pools.close_idle()


def test_what_takes_long_leaves_the_only_idle_connection_to_others(things: Store) -> None:
    first = backend(things)
    with long_here():
        others = {backend(things), backend(things)}  # the second time two are idle
    assert first not in others
    assert len(others) == 1
    assert backend(things) in {first, *others}


def test_a_login_that_may_have_one_connection_does_all_with_it(
    postgres_database: str, things: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with things.access.once("make", writes=True) as cx:  # type: ignore[attr-defined] # a SqlStore
        cx.execute(sa.text("CREATE ROLE only_one LOGIN PASSWORD 'x' CONNECTION LIMIT 1"))
    url = sa.make_url(postgres_database).set(username="only_one", password="x")
    limited = opened(url.render_as_string(hide_password=False))
    used, is_refused, gone = list[int](), threading.Event(), SharedPool._gone

    def noted(pool: SharedPool) -> None:
        gone(pool)
        is_refused.set()

    monkeypatch.setattr(SharedPool, "_gone", noted)
    try:
        used.append(backend(limited))
        with long_here():
            used.append(backend(limited))
        assert is_refused.is_set()
        is_refused.clear()
        other = threading.Thread(target=lambda: used.append(backend(limited)))
        with limited.access.once("hold it"):
            other.start()
            assert is_refused.wait(10)
            assert len(used) == 2
        other.join()
    finally:
        limited.close()
        pools.close_idle()
        with things.access.once("drop", writes=True) as cx:  # type: ignore[attr-defined] # a SqlStore
            cx.execute(sa.text("DROP ROLE only_one"))
    assert used == used[:1] * 3


def test_the_next_user_of_a_database_gets_the_connection_of_the_last(postgres_database: str, things: Store) -> None:
    first = backend(things)
    things.close()
    other = opened(postgres_database, "target place")
    assert backend(other) == first
    state = state_of(other)
    assert (state.kind, state.open, state.idle, state.reconnects) == ("postgresql", 1, 1, 0)
    assert state.login.is_valid
    other.close()


def test_a_changed_password_never_gets_the_connections_of_the_old_one(postgres_database: str, things: Any) -> None:
    things.ping()
    changed = opened(sa.make_url(postgres_database).set(password="no-such-pass").render_as_string(hide_password=False))
    with pytest.raises(StoreUnavailable):
        changed.ping()
    changed.close()
    first, second = (state for state in pools.states() if state.server == things.access.dialect.location)
    assert (first.open, first.login.is_valid, second.open, second.login.is_valid) == (1, True, 0, False)


def test_a_refused_login_is_tried_once_for_all_and_again_after_a_minute(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers lock a login after a few wrong passwords."""
    wrong = sa.make_url(postgres_database).set(password="no-such-password").render_as_string(hide_password=False)
    stores, tried, told = [opened(wrong) for _ in range(6)], list[int](), list[str]()
    make = SharedPool._create_connection

    def noted(pool: SharedPool) -> Any:
        tried.append(1)
        return make(pool)

    def ask(store: Any) -> None:
        try:
            store.ping()
        except StoreUnavailable as error:
            told.append(str(error))

    monkeypatch.setattr(SharedPool, "_create_connection", noted)
    threads = [threading.Thread(target=ask, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(tried), len(told)) == (1, 6)
    assert ["password authentication failed" in text for text in told] == [True] * 6
    assert ["so it said 0 s ago" in text for text in told].count(True) == 5
    pool = pool_of(stores[0])
    monkeypatch.setattr(pool, "clock", lambda: time.monotonic() + REFUSED_SECONDS)
    ask(stores[0])
    assert (len(tried), len(told)) == (2, 7)
    for store in stores:
        store.close()


def test_no_key_of_a_pool_shows_its_secret() -> None:
    keys = [PoolKey.of("postgresql", "here/db", password) for password in ("a-secret", "a-secret", "another")]
    assert (keys[0] == keys[1], keys[0] == keys[2]) == (True, False)
    assert "secret" not in repr(keys)


def test_a_connection_that_the_server_ended_is_replaced_before_it_is_used(things: Any) -> None:
    with things.access.once("hold one"):
        things.ping()
    with sa.create_engine(things.access.dialect.engine.url, poolclass=sa.NullPool).connect() as cx:
        cx.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    things.ping()  # one try, and no retry
    state = state_of(things)
    assert (state.open, state.idle, state.reconnects) == (1, 1, 1)


def test_each_lost_connection_is_counted_also_where_no_other_was_opened_since_the_last(things: Any) -> None:
    pool, engine = pool_of(things), things.access.dialect.engine
    with engine.connect() as held, sa.create_engine(engine.url, poolclass=sa.NullPool).connect() as ending:

        def end(pid: int) -> None:
            ending.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        def full() -> None:
            pool._gone()
            raise sa.exc.TimeoutError

        with engine.connect() as idle:
            pids = [cx.scalar(sa.text("SELECT pg_backend_pid()")) for cx in (held, idle)]
        end(pids[1])
        held.close()
        assert backend(things) == pids[0]
        with pool.connect(), pytest.MonkeyPatch.context() as patch:  # the one that is left; the lost one is found now
            patch.setattr(pool, "_new", full)
            with pytest.raises(sa.exc.TimeoutError):
                pool.connect()
        assert pool.lost_connections == 1
        end(pids[0])
        things.ping()
    assert pool.lost_connections == 2


def test_idle_connections_are_closed_in_time_and_used_ones_are_not(things: Any) -> None:
    pool, now = pool_of(things), [1000.0]
    pool.close_idle(0)
    pool.clock = lambda: now[0]
    with things.access.once("hold one"):
        things.ping()
        assert (state_of(things).open, state_of(things).idle) == (2, 1)
        now[0] += pools.IDLE_SECONDS - 1
        pools.close_idle(pools.IDLE_SECONDS)
        assert state_of(things).open == 2
        now[0] += 2
        pools.close_idle(pools.IDLE_SECONDS)
        assert (state_of(things).open, state_of(things).idle) == (1, 0)
    assert state_of(things).reconnects == 0  # to close what is idle loses nothing


def test_a_process_that_does_nothing_more_ends_its_last_connection_within_forty_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(pools, "_pools", pools._Pools(sleep))
    opened_elsewhere = sqlite3.connect(":memory:", check_same_thread=False)
    pool, lease = pools.lease(PoolKey.of("sqlite", "here"), 1, lambda: SharedPool(lambda: opened_elsewhere))
    pool.clock = lambda: now[0]
    before = set(threading.enumerate())
    pool.connect().close()
    lease.release()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # no further use
    assert pool.is_empty
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened_elsewhere.execute("SELECT 1")
    assert 1000 + pools.IDLE_SECONDS <= now[0] <= 1000 + 40


def test_nothing_of_a_failed_use_is_left_for_the_next_one(things: Any) -> None:
    first = backend(things)

    def fail() -> None:
        with things.access.once("fail", writes=True) as cx:
            cx.execute(sa.text("SET LOCAL search_path TO nowhere"))
            cx.execute(sa.text("SELECT pg_advisory_xact_lock(7)"))
            cx.execute(sa.text("CREATE TEMPORARY TABLE left_behind (a int)"))
            cx.execute(sa.text("SELECT 1 / 0"))

    with pytest.raises(StoreError):
        fail()
    with things.access.once("look") as cx:
        assert cx.scalar(sa.text("SELECT pg_backend_pid()")) == first
        assert cx.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0
        assert cx.scalar(sa.text("SELECT to_regclass('left_behind')")) is None
        assert cx.scalar(sa.text("SHOW search_path")) != "nowhere"
        assert cx.scalar(sa.text("SHOW row_security")) == "off"


def test_a_column_that_somebody_alters_breaks_no_statement_of_a_connection_that_lives_on(
    postgres_database: str, things: Any
) -> None:
    def rows() -> list[tuple[Any, ...]]:
        with things.access.once("read all", single=True) as cx:
            return list(map(tuple, cx.execute(sa.text('SELECT * FROM "Things"'))))

    for _ in range(7):  # a driver that prepares statements prepares what it has sent five times
        assert rows() == [(1, 1, "a")]
    first = backend(things)
    # Through another connection: a driver forgets what it has prepared when it sends the change itself.
    with sa.create_engine(postgres_database, poolclass=sa.NullPool).begin() as cx:
        cx.execute(sa.text('ALTER TABLE "Things" ALTER COLUMN "Version" TYPE text'))
    assert rows() == [(1, "1", "a")]
    assert backend(things) == first  # it had no reason to be replaced
    with things.access.once("look", single=True) as cx:
        assert cx.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements")) == 0


def at_once(number: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_with_short_statements_share_a_connection_and_held_ones_get_another(things: Any) -> None:
    pool = pool_of(things)
    things.ping()
    pool._connect_seconds = 60.0  # so long would opening another take
    at_once(4, things.ping)
    assert state_of(things).open == 1
    pool._connect_seconds = 0.0
    held = threading.Barrier(3)

    def hold() -> None:
        with things.access.once("hold"):
            held.wait(10)

    at_once(3, hold)
    assert (state_of(things).open, state_of(things).idle) == (3, 3)


def test_no_more_connections_are_open_than_the_users_may_have(things: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backup.stores.sql.pool._WAIT_SECONDS", 0.0)
    pool = pool_of(things)
    taken = [pool.connect() for _ in range(Limits().parallelism + 3)]
    with pytest.raises(sa.exc.TimeoutError):
        pool.connect()
    taken.pop().close()
    pool.connect().close()
    for connection in taken:
        connection.close()


def test_a_forked_process_opens_connections_of_its_own(postgres_database: str, things: Store) -> None:
    first = backend(things)
    if (child := os.fork()) == 0:
        try:
            its_own = opened(postgres_database)
            os._exit(0 if backend(its_own) != first and pools.states()[0].open == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend(things) == first


# --- SQLite -----------------------------------------------------------------------------------------------------------


def make(path: Path, *ids: int) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE Things (Id INTEGER PRIMARY KEY, Version INTEGER NOT NULL)")
        file.executemany("INSERT INTO Things VALUES (?, 1)", [(n,) for n in ids])


def test_a_file_is_closed_once_nobody_uses_it(tmp_path: Path) -> None:
    make(tmp_path / "a.db", 1)
    first, second = (opened(f"sqlite:///{tmp_path}/a.db") for _ in range(2))
    first.ping()
    second.ping()
    assert state_of(first).open == 1  # one connection for both
    first.close()
    assert state_of(second).open == 1
    second.close()
    assert state_of(second).open == 0


def test_a_file_that_took_the_place_of_another_is_read_by_who_begins_then(tmp_path: Path) -> None:
    make(tmp_path / "a.db", 1)
    make(tmp_path / "b.db", 1, 2, 3)
    store, other = opened(f"sqlite:///{tmp_path}/a.db"), opened(f"sqlite:///{tmp_path}/a.db")
    assert store.count() == 1
    (tmp_path / "b.db").replace(tmp_path / "a.db")
    for _ in range(2):  # what it has seen says nothing about this file
        with pytest.raises(StoreUnavailable, match="another file has taken the place"):
            store.count()
    assert other.count() == 3
    for each in (store, other):
        each.close()
    assert store.count() == 3
    store.close()


def test_a_file_that_is_gone_is_an_error_and_not_an_open_file(tmp_path: Path) -> None:
    make(tmp_path / "a.db", 1)
    store = opened(f"sqlite:///{tmp_path}/a.db")
    store.ping()
    (tmp_path / "a.db").unlink()
    with pytest.raises(Exception, match="no such file"):
        store.ping()
    store.close()
