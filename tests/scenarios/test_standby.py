"""A set whose source is a standby of PostgreSQL, which only reads, and shows what its primary has written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError, StoreUnavailable
from backup.core.run_values import Trigger
from backup.verbs.restore_spec import RestoreSpec
from tests.emulators.servers import postgres_standby
from tests.scenarios import places
from tests.scenarios.shops import EXCLUDE, SHOP, Shop


@pytest.fixture
def followed(postgres: str, postgres_shop: Shop) -> Iterator[Shop]:
    """A shop on a primary, as its standby shows it."""
    postgres_shop.run(SHOP)
    with postgres_standby(postgres) as standby:
        yield replace(postgres_shop, source=_on(standby, postgres_shop.source))
        places.engine(_on(standby, postgres_shop.source)).dispose()


def _on(server: str, url: str) -> str:
    moved = sa.make_url(url).set(port=sa.make_url(server).port)
    return moved.render_as_string(hide_password=False)


def test_a_standby_is_a_source_that_may_be_read_as_of_one_moment_and_neither_a_backup_nor_another_place(
    postgres_shop: Shop, followed: Shop
) -> None:
    registry = followed.registry(EXCLUDE, "consistent = true")
    for _ in range(2):  # the second time by the same connections
        outcomes = registry.sync("shop", Trigger.CLI)
        assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
        assert None not in {outcome.run.read_as_of for outcome in outcomes}
    # Its backup would lie in what it shows.
    tables = postgres_shop.tables("source")
    into_itself = replace(followed, backup=postgres_shop.source)
    refusals = {type(outcome.error) for outcome in into_itself.sync(EXCLUDE).values()}
    assert refusals == {ConfigError}
    assert postgres_shop.tables("source") == tables
    # Nothing can be written there, which is the fault of no record.
    postgres_shop.run("""DELETE FROM "Invoice" WHERE "Id" = 1""")
    waits_until = time.monotonic() + 60
    while len(followed.rows('"Invoice"', "source")) > 1:
        assert time.monotonic() < waits_until
    restored = registry.get("shop/public.Invoice").restore(RestoreSpec())
    assert isinstance(restored.error, StoreUnavailable)
    assert "Name the primary" in restored.error.hint
    assert restored.run.counts.failed == 0
