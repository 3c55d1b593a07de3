"""Sessions of a pool that are of no use any more, because the server, the database or the role was made anew."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backup.core.errors import RightMissing, StoreUnavailable
from backup.core.retry import Retry
from backup.stores import Limits, Rules, pools
from backup.stores.sides import Side, open_store
from backup.stores.sql.engines.mssql.errors import is_session_lost

AT_ONCE = Retry(max_attempts=40, base_seconds=0.05, max_seconds=0.05)
ONE_TRY = Retry(max_attempts=1)
TABLE = 'CREATE TABLE IF NOT EXISTS public."Things" ("Id" int PRIMARY KEY, "Version" int NOT NULL)'


def opened(url: sa.URL, retry: Retry = ONE_TRY) -> Any:
    side = Side("customer", "source", "Source", url.render_as_string(hide_password=False), table="Things")
    return open_store(side, Rules(version=("Version",)), Limits(retry=retry))


def wait_until_ended(session: sa.Connection) -> None:
    """Waits until the server has ended the session. The limit of the test ends a wait that is in vain."""
    with pytest.raises(sa.exc.OperationalError):
        session.execute(sa.text("SELECT pg_sleep(3600)"))
    session.invalidate()


def reconnects(store: Any) -> int:
    location = store.access.dialect.location
    return max(state.reconnects for state in pools.states() if state.server == location)


class Owned(NamedTuple):
    """A database with the table Things, and a role that may read it. `run` runs statements as the superuser there,
    `on_server` beside it; `{role}` and `{database}` in them are names."""

    url: sa.URL
    run: Callable[..., None]
    on_server: Callable[..., None]

    def session(self) -> Any:
        """A session of the role's own, beside the pools."""
        return sa.create_engine(self.url, poolclass=sa.NullPool).connect()

    def make_role(self) -> None:
        self.run(
            f"CREATE ROLE {{role}} LOGIN PASSWORD '{self.url.password}'",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        )


@pytest.fixture
def owned(postgres: str, postgres_database: str) -> Iterator[Owned]:
    admin = sa.make_url(postgres_database)
    role = f"role_{uuid4().hex[:12]}"

    def runner(url: sa.URL) -> Callable[..., None]:
        def run(*statements: str) -> None:
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
            with engine.connect() as cx:
                for statement in statements:
                    cx.exec_driver_sql(statement.format(role=role, database=admin.database))

        return run

    made = Owned(admin.set(username=role, password="a-password"), runner(admin), runner(sa.make_url(postgres)))
    made.run(TABLE, 'INSERT INTO "Things" VALUES (1, 1)')
    made.make_role()
    yield made
    pools.close_idle()
    made.run("DROP OWNED BY {role}", "DROP ROLE {role}")


def test_a_role_that_is_dropped_and_made_again_gets_a_session_of_its_own(owned: Owned) -> None:
    store = opened(owned.url)
    assert store.count() == 1
    owned.run("DROP OWNED BY {role}", "DROP ROLE {role}")
    owned.make_role()
    assert store.count() == 1
    assert reconnects(store) == 1
    store.close()


def test_a_right_that_is_really_missing_costs_one_more_session_and_stays_an_error(owned: Owned) -> None:
    store = opened(owned.url, AT_ONCE)
    assert store.count() == 1
    owned.run('REVOKE SELECT ON "Things" FROM {role}')
    with pytest.raises(RightMissing, match="permission denied"):
        store.count()
    assert reconnects(store) == 1
    store.close()


def test_one_session_that_is_out_of_date_takes_the_other_idle_ones_with_it(owned: Owned) -> None:
    store = opened(owned.url)
    with store.access.once("hold one"), store.access.once("hold two"):
        store.count()
    owned.run("DROP OWNED BY {role}", "DROP ROLE {role}")
    owned.make_role()
    assert store.count() == 1
    with store.access.once("hold the new one"), store.access.once("ask another") as cx:
        assert cx.scalar(sa.text("SELECT current_user")) == owned.url.username
    assert reconnects(store) == 1
    store.close()


def test_a_login_that_was_revoked_is_an_error_until_it_is_granted_again(owned: Owned) -> None:
    store = opened(owned.url)
    assert store.count() == 1
    owned.run(
        "ALTER ROLE {role} NOLOGIN",
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'",
    )
    with pytest.raises(StoreUnavailable, match="not permitted to log in"):
        store.count()
    owned.run("ALTER ROLE {role} LOGIN")
    assert store.count() == 1
    store.close()


def test_a_password_that_was_changed_on_the_server_is_an_error_for_new_sessions_only(owned: Owned) -> None:
    store = opened(owned.url)
    assert store.count() == 1
    owned.run("ALTER ROLE {role} PASSWORD 'another'")
    assert store.count() == 1
    pools.close_idle()
    with pytest.raises(StoreUnavailable, match="password"):
        store.count()
    store.close()


def test_a_database_that_is_dropped_and_made_again_is_read_anew(owned: Owned) -> None:
    store = opened(owned.url)
    assert store.count() == 1
    owned.on_server("DROP DATABASE {database} WITH (FORCE)", "CREATE DATABASE {database}")
    owned.run(TABLE, 'GRANT SELECT ON "Things" TO {role}')
    assert store.count() == 0
    store.close()


def test_a_server_that_ended_all_sessions_and_started_again_is_waited_for(owned: Owned) -> None:
    store = opened(owned.url, Retry(max_attempts=2000, base_seconds=0.05, max_seconds=0.05))
    with store.access.once("hold one") as cx:
        pid = cx.scalar(sa.text("SELECT pg_backend_pid()"))
        store.count()
    with owned.session() as bystander:
        os.kill(pid, signal.SIGKILL)  # on which the server ends all others, and recovers
        wait_until_ended(bystander)
    assert store.count() == 1
    with store.access.once("hold one"):
        assert store.count() == 1
    store.close()


@pytest.mark.parametrize("number", [596, 615, 921, 983, 4221, 6005, 233, 10053, 10054, 10060, 40143, 40197, 40613])
def test_t_sql_ends_a_session_with_these_numbers(number: int) -> None:
    assert is_session_lost(t_sql(number), False)


@pytest.mark.parametrize("number", [229, 262, 911, 916, 3906, 4060, 15404, 18456])
def test_t_sql_doubts_a_session_with_these_numbers_only_if_it_was_idle(number: int) -> None:
    assert is_session_lost(t_sql(number), True)
    assert not is_session_lost(t_sql(number), False)


@pytest.mark.parametrize("number", [208, 547, 1205, 1222, 2627, 3960, 10928, 40501, 50000])
def test_t_sql_keeps_a_session_with_these_numbers(number: int) -> None:
    assert not is_session_lost(t_sql(number), True)


def t_sql(number: int) -> Exception:
    return Exception("42000", f"[42000] [M][SQL Server]The words of the server (64). ({number}) (SQLExecDirectW)")
