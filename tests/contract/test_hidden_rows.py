"""What a login may not see: rows that a policy hides, tables without a right to them, tables under other names."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError, RightMissing, SourceMissing, StoreError
from backup.runs import upgrade
from backup.stores import Store
from backup.stores.sql.engines.mssql.system_tables import refuse_hidden
from backup.stores.sql.engines.tables import TableName
from tests.contract.benches import ROLES, Item, PostgresBench, Role


@pytest.fixture
def role(postgresql_bench: PostgresBench) -> Iterator[str]:
    """A login that may do everything with the tables, and is neither their owner nor exempt from policies."""
    bench = postgresql_bench
    bench.create([Item(1), Item(2)])
    bench.pair()
    # A new name each time: connections that outlive a test belong to a role that is gone.
    name = f"reader_{uuid.uuid4().hex[:8]}"
    bench.sql("source", f"CREATE ROLE {name} LOGIN PASSWORD 'some'")
    for side in ROLES:
        bench.sql(side, f"GRANT USAGE ON SCHEMA {bench.quote(bench.schema or '')} TO {name}")
        bench.sql(side, f"GRANT ALL ON {{table}} TO {name}")
    yield name
    for side in reversed(ROLES):
        bench.sql(side, f"DROP OWNED BY {name}")
    bench.sql("source", f"DROP ROLE {name}")


def opened(bench: PostgresBench, side: Role, role: str) -> Store:
    url = sa.make_url(bench.connection_strings[side]).set(username=role, password="some")
    return bench.open(side, connection_string=url.render_as_string(hide_password=False))


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_policy_of_postgresql_that_may_hide_rows_is_an_error(
    postgresql_bench: PostgresBench, role: str, side: Role
) -> None:
    store = opened(postgresql_bench, side, role)
    assert store.count() == (2 if side == "source" else 0)
    postgresql_bench.sql(side, "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    postgresql_bench.sql(side, f"CREATE POLICY odd ON {{table}} TO {role} USING (Id <> 1)")
    with pytest.raises(StoreError, match="row-level security") as later:  # the shape is known: the server refuses
        store.count()
    with pytest.raises(ConfigError, match=f"may hide rows from the role {role}") as first:
        opened(postgresql_bench, side, role).count()
    assert "BYPASSRLS" in later.value.hint
    assert "BYPASSRLS" in first.value.hint
    postgresql_bench.sql("source", f"ALTER ROLE {role} BYPASSRLS")
    assert opened(postgresql_bench, side, role).count() == (2 if side == "source" else 0)


def test_a_query_of_history_that_is_refused_is_no_table_of_an_earlier_release(
    postgresql_bench: PostgresBench, role: str
) -> None:
    upgrade.create(postgresql_bench.open("backup"), "thing")
    store = opened(postgresql_bench, "backup", role)
    history = f'{postgresql_bench.quote(postgresql_bench.schema or "")}."SyncHistory"'
    with pytest.raises(RightMissing, match="permission denied"):
        upgrade.read(store, "thing")
    postgresql_bench.sql("backup", f"GRANT SELECT ON {history} TO {role}")
    opening = upgrade.read(store, "thing")
    assert opening is not None
    assert opening.next_number == 1
    postgresql_bench.sql("backup", f'ALTER TABLE {history} DROP COLUMN "Verb"')
    assert upgrade.read(store, "thing") is None


@pytest.mark.parametrize("side", ["source", "backup"])
def test_a_right_that_is_missing_is_named_with_its_grant(
    postgresql_bench: PostgresBench, role: str, side: Role
) -> None:
    store = opened(postgresql_bench, side, role)
    postgresql_bench.sql(side, f"REVOKE ALL ON {{table}} FROM {role}")
    with pytest.raises(StoreError, match="permission denied") as reading:
        store.count()
    with pytest.raises(StoreError, match="permission denied") as writing:
        store.delete([(1,)])
    assert isinstance(writing.value, RightMissing)  # no reason to try record by record
    for caught in (reading, writing):
        assert f'GRANT SELECT ON TABLE "Things" TO "{role}"' in caught.value.hint
        assert "rolled back" not in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("{schema}.things", "; there is Things."),
        ("{lower}.Things", "; there is {schema}.Things."),
        ("{schema}.Thinks", "; did you mean Things?"),
        ("{schema}.Zebra", "does not exist."),
    ],
)
def test_a_table_that_is_not_there_is_told_with_the_one_that_may_be_meant(
    postgresql_bench: PostgresBench, asked: str, message: str
) -> None:
    bench = postgresql_bench
    bench.create()
    names = {"schema": bench.schema or "", "lower": (bench.schema or "").lower()}
    with pytest.raises(SourceMissing) as caught:
        bench.open("source", table=asked.format(**names)).count()
    assert str(caught.value).endswith(message.format(**names))


@pytest.mark.parametrize(
    ("policies", "all_rows", "refused"),
    [
        ([], 3, False),
        ([(1, 0, 1)], 2, False),
        ([(1, 0, 1)], 3, True),
        ([(0, 0, 1)], 3, False),
        ([(1, 1, 1)], 3, False),
        ([(1, 0, 9)], 3, False),
    ],
)
def test_a_policy_of_sql_server_that_hides_rows_is_an_error(
    policies: list[tuple[int, int, int]], all_rows: int, refused: bool
) -> None:
    class CountBig:
        def __init__(self) -> None:
            self.rows = 0

        def step(self, *_: Any) -> None:
            self.rows += 1

        def finalize(self) -> int:
            return self.rows

    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as cx:  # stands in for a server: a catalogue with these policies (enabled, kind, table)
        driver: sqlite3.Connection = cx.connection.driver_connection  # type: ignore[assignment]
        driver.create_function("OBJECT_ID", 1, {"[dbo].[Things]": 1}.get)
        driver.create_function("QUOTENAME", 1, lambda name: f"[{name}]")
        driver.create_function("CONCAT", 3, lambda *parts: "".join(parts))
        driver.create_aggregate("count_big", -1, CountBig)
        for name in ("sys", "dbo"):
            cx.exec_driver_sql(f"ATTACH ':memory:' AS {name}")
        for table in (
            "sys.security_policies (object_id, name, is_enabled)",
            "sys.security_predicates (object_id, predicate_type, target_object_id)",
            "sys.partitions (object_id, index_id, rows)",
            "dbo.Things (Id)",
        ):
            cx.exec_driver_sql(f"CREATE TABLE {table}")
        cx.exec_driver_sql("INSERT INTO dbo.Things VALUES (1), (2)")
        cx.exec_driver_sql("INSERT INTO sys.partitions VALUES (1, 1, ?), (1, 2, 99), (2, 1, 99)", (all_rows,))
        for enabled, kind, target in policies:
            cx.exec_driver_sql("INSERT INTO sys.security_policies VALUES (7, 'Odd', ?)", (enabled,))
            cx.exec_driver_sql("INSERT INTO sys.security_predicates VALUES (7, ?, ?)", (kind, target))
        for has_policies in (False, True):  # as the catalogue says of the server
            is_refused = refused and has_policies
            with pytest.raises(ConfigError, match="Odd shows this login 2 of the 3") if is_refused else nullcontext():
                refuse_hidden(cx, TableName("dbo", "Things"), [{"has_policies": has_policies}])
