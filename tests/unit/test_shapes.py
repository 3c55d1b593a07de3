"""A shape is made once of what the catalogue and the rules say, and made again when one of them says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from backup.stores import Rules
from backup.stores.sql.engines.column import Column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.sqlite.dialect import SqliteDialect
from backup.stores.sql.engines.sqlite.types import type_of
from backup.stores.sql.engines.tables import TableName
from backup.stores.sql.shaping import described_shape
from backup.stores.sql.table import TableShape

ID = Column("Id", type_of("INTEGER"), nullable=False, key_position=1)
VERSION, CITY = (Column(name, type_of("INTEGER"), nullable=True) for name in ("Version", "City"))
RULES = Rules(version=("Version",))


@pytest.fixture
def dialect(tmp_path: Path) -> SqliteDialect:
    return SqliteDialect(URL.create("sqlite", database=str(tmp_path / "source.db")))


def made(dialect: SqliteDialect, *columns: Column, rules: Rules = RULES, rows_at_most: int | None = None) -> TableShape:
    described = Described(TableName(None, "Customers"), list(columns), rows_at_most=rows_at_most)
    return described_shape(dialect, rules, described, f"source ({dialect.location})")


def test_the_same_description_and_rules_give_the_same_shape_with_the_number_of_rows_of_now(
    dialect: SqliteDialect,
) -> None:
    first, again = made(dialect, ID, VERSION), made(dialect, ID, VERSION, rows_at_most=5)
    assert again.origin is first.origin
    assert (first.rows_at_most, again.rows_at_most) == (None, 5)


def test_what_a_run_does_to_its_shape_stays_with_the_run(dialect: SqliteDialect) -> None:
    run = made(dialect, ID, VERSION)
    run.match(made(dialect, ID))
    assert not run.version
    assert [column.name for column in made(dialect, ID, VERSION).version] == ["Version"]


def test_other_rules_and_other_columns_give_another_shape(dialect: SqliteDialect) -> None:
    made(dialect, ID, VERSION)
    assert not made(dialect, ID, VERSION, rules=Rules()).version
    assert made(dialect, ID, VERSION, CITY, rules=Rules()).names == ("Id", "Version", "City")
