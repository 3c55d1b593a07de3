"""A standby of PostgreSQL, as a source that only reads, and in the place of a backup, without the last commits."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from backup.core.errors import ConfigError, NotVerified, StoreUnavailable
from backup.core.run_values import Counts, Run, Trigger, Verb
from backup.runs.outcome import Observer, Turn
from backup.runs.session import Session
from backup.services.service import Options
from backup.verbs import sync as verbs_sync
from backup.verbs.restore_spec import RestoreSpec
from tests.scenarios import places
from tests.scenarios.proxy import Proxy
from tests.scenarios.shops import EXCLUDE, SHOP, Shop


def in_chunks(size: str) -> dict[str, str]:
    """The settings of a sync that goes chunk by chunk."""
    return {"BackupSync__ChunkSize": size, "BackupSync__Parallelism": "1"}


class Failover(Observer):
    """Lets the standby become a primary when a run has begun, and take its primary's place when that has inserted."""

    def __init__(self, primary: sa.Engine, standby: sa.Engine, proxy: Proxy) -> None:
        self.primary, self.standby, self.proxy = primary, standby, proxy
        self.inserted = 0

    def started(self, run: Run) -> None:
        if run.verb is Verb.UNDO:
            return
        with self.primary.connect() as cx:
            upto = cx.exec_driver_sql("SELECT pg_current_wal_lsn()").scalar_one()
        self._wait_for(f"SELECT pg_last_wal_replay_lsn() >= '{upto}'")
        self._wait_for("SELECT pg_promote()")

    def progress(self, service: str, counts: Counts) -> None:
        is_first = counts.inserted and not self.inserted
        self.inserted = self.inserted or counts.inserted
        if is_first or counts.deleted:
            self.proxy.lead_to(self.standby.url.port or 0)

    def _wait_for(self, query: str) -> None:
        waits_until = time.monotonic() + 60
        while True:
            with self.standby.connect() as cx:
                if cx.exec_driver_sql(query).scalar_one():
                    return
            assert time.monotonic() < waits_until


def _on(server: str, url: str) -> str:
    return _at(url, sa.make_url(server).port)


def _behind(shop: Shop, proxy: Proxy) -> Shop:
    return replace(shop, backup=_at(shop.backup, proxy.port))


def _at(url: str, port: int | None) -> str:
    return sa.make_url(url).set(port=port).render_as_string(hide_password=False)


def test_a_standby_is_a_source_that_may_be_read_as_of_one_moment_and_neither_a_backup_nor_another_place(
    postgres_shop: Shop, postgres_standby: str
) -> None:
    postgres_shop.run(SHOP)
    followed = replace(postgres_shop, source=_on(postgres_standby, postgres_shop.source))
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


def test_a_backup_whose_next_server_lacks_the_last_commits_is_compared_once_more(
    postgres: str, postgres_shop: Shop, postgres_standby: str
) -> None:
    shop = replace(postgres_shop, settings=in_chunks("10"))
    shop.run('CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY, "Name" VARCHAR(9))')
    shop.sync()
    shop.run("""INSERT INTO "Thing" SELECT n, 'x' FROM generate_series(1, 30) n""")
    proxy = Proxy(sa.make_url(postgres).port or 0, cut_after=1 << 40)
    with proxy.running():
        moved = _behind(shop, proxy)
        primary, successor = (places.engine(_on(server, shop.backup)) for server in (postgres, postgres_standby))
        failover = Failover(primary, successor, proxy)
        [outcome] = moved.registry().sync("shop", Trigger.CLI, observer=failover)
        assert 0 < failover.inserted < 30
        assert outcome.error is None
        assert any("was compared once more" in note for note in outcome.run.notes)
        assert (outcome.run.counts.inserted, outcome.run.counts.skipped, outcome.run.verified) == (30, 0, True)
        assert len(moved.rows('"Thing"')) == 30
        [quiet] = moved.registry().sync("shop", Trigger.CLI)
        assert (quiet.error, quiet.run.counts.skipped, quiet.run.counts.processed) == (None, 30, 0)
        undone = moved.registry().get("shop/public.Thing").undo(outcome.run.sync_id, observer=failover)
        assert undone.error is None
        assert any("The same undo once more" in note for note in undone.run.notes)
        for engine in (successor, places.engine(moved.backup)):
            engine.dispose()


def test_a_sync_that_loses_its_connections_behind_its_last_proof_fails_unless_both_sides_are_seen_equal(
    postgres_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = sa.make_url(postgres_shop.backup).port or 0
    with Proxy(port, cut_after=1 << 40).running() as proxy:
        shop = _behind(postgres_shop, proxy)
        shop.run('CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY); INSERT INTO "Thing" VALUES (1)')
        monkeypatch.setattr(verbs_sync, "_complete", lambda _: proxy.lead_to(port))
        assert shop.sync()["Thing"].error is None

        def complete(_: Session) -> None:
            shop.run('INSERT INTO "Thing" VALUES (3)')  # as if the backup lacked it
            proxy.lead_to(port)

        monkeypatch.setattr(verbs_sync, "_complete", complete)
        shop.run('INSERT INTO "Thing" VALUES (2)')
        assert isinstance(shop.sync()["Thing"].error, StoreUnavailable)
        assert shop.column('SELECT "Status" FROM "SyncHistory" ORDER BY "RunNumber"') == ["Completed", "Failed"]
        places.engine(shop.backup).dispose()


class Cut(Observer):
    """Cuts the connections to the backup once the run has inserted."""

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy, self.port, self.cuts = proxy, port, 0

    def progress(self, service: str, counts: Counts) -> None:
        if counts.processed and not self.cuts:
            self.cuts += 1
            self.proxy.lead_to(self.port)


def test_a_sync_with_a_limit_that_loses_its_connections_fails(postgres_shop: Shop) -> None:
    port = sa.make_url(postgres_shop.backup).port or 0
    with Proxy(port, cut_after=1 << 40).running() as proxy:
        shop = replace(_behind(postgres_shop, proxy), settings=in_chunks("10"))
        shop.run('CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY)')
        shop.run('INSERT INTO "Thing" SELECT n FROM generate_series(1, 30) n')
        [outcome] = shop.registry().sync("shop", Trigger.CLI, Options(limit=100), observer=Cut(proxy, port))
        assert isinstance(outcome.error, NotVerified)
        assert (outcome.run.proof, outcome.run.notes) == (None, ())
        assert shop.sync()["Thing"].error is None
        places.engine(shop.backup).dispose()


def test_a_sync_in_slices_whose_connections_break_in_each_walk_ends(postgres_shop: Shop) -> None:
    port = sa.make_url(postgres_shop.backup).port or 0
    with Proxy(port, cut_after=1 << 40).running() as proxy:
        shop = replace(_behind(postgres_shop, proxy), settings=in_chunks("1"))
        shop.run('CREATE TABLE "Thing" ("Id" INTEGER PRIMARY KEY); INSERT INTO "Thing" VALUES (1), (2), (3)')
        service = shop.registry().get("shop/public.Thing")
        service.initialize()
        outcome = service.sync(Trigger.CLI, Options(force=True), Cut(proxy, port), Turn(0))
        for _ in range(30):
            if (resumed := service.resume(Trigger.JOB, Turn(0), Cut(proxy, port))) is None:
                break
            outcome = resumed
        assert isinstance(outcome.error, NotVerified)
        assert len(outcome.run.notes) == 2
        places.engine(shop.backup).dispose()
